//! `metrics --listen`: /metrics and /healthz by HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::common::*;
use super::samples;

/// The server, and where it listens.
fn serve(t: &Test) -> (Running, SocketAddr) {
    let mut command = Command::new(binary());
    command.arg("--root").arg(&t.root).args(["metrics", "--listen", "127.0.0.1:0"]);
    let server = t.spawn(command, Stdio::null());
    server.wait_for("/metrics\n");
    let said = server.stdout_now();
    let address = said.trim().strip_prefix("listening at http://").and_then(|it| it.strip_suffix("/metrics"));
    (server, address.unwrap_or_else(|| panic!("{said}")).parse().unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

/// Head and body of the answer to these bytes.
fn ask(address: SocketAddr, bytes: &[u8]) -> (String, String) {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    answer(stream)
}

fn answer(mut stream: TcpStream) -> (String, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.starts_with("HTTP/1.1 ") && (head.contains(&length) || body.is_empty()), "{text}");
    (head.to_owned(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

#[test]
fn metrics_and_health_are_served_until_sigterm() {
    rustbox_only!();
    let t = Test::new();
    let (server, address) = serve(&t);
    let (head, body) = get(address, "/metrics?x=y");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(samples(&body)["rustbox_start_latency_seconds_count"], 0.0);
    t.bundle(sh("true")).run().ok();
    let (_, body) = get(address, "/metrics");
    assert_eq!(samples(&body)["rustbox_start_latency_seconds_count"], 1.0);
    let openmetrics = b"GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text; version=1.0.0,*/*;q=0.1\r\n\r\n";
    let (head, body) = ask(address, openmetrics);
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0") && body.ends_with("# EOF\n"),
        "{head}\n{body}"
    );

    let (head, body) = get(address, "/healthz");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["status"], "healthy");
    t.runtime(&["health", "--quarantine", "--reason", "a test"]).ok();
    let (head, body) = get(address, "/healthz");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&health["status"], &health["reasons"][0]), (&json!("quarantined"), &json!("a test")));
    let (_, body) = get(address, "/metrics");
    assert_eq!(samples(&body)["rustbox_worker_health{status=\"quarantined\"}"], 1.0);

    server.signal(libc::SIGTERM);
    server.wait().ok();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn what_is_no_request_gets_a_plain_answer() {
    rustbox_only!();
    let t = Test::new();
    let (server, address) = serve(&t);
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not TLS\r\n\r\n", "400"),
        (b"GET /metrics\r\n\r\n", "400"),
        (&[&b"GET /metrics HTTP/1.1\r\nX: "[..], &[b'a'; 20_000], b"\r\n\r\n"].concat(), "400"),
        (&[&b"GET /metrics HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(100), b"\r\n"].concat(), "400"),
    ] {
        let (head, body) = ask(address, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && !body.is_empty(), "{head}");
    }
    let (head, body) = ask(address, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}\n{body}");
    drop(server);
}

#[test]
fn nobody_waits_for_a_client_that_dawdles() {
    rustbox_only!();
    let t = Test::new();
    let (server, address) = serve(&t);
    // More than are taken at once.
    let idle: Vec<_> = (0..63).map(|_| connect(address)).collect();
    let mut half = connect(address);
    half.write_all(b"GET /healthz HT").unwrap();
    // They are sent away after 5 s, and the next one is heard.
    let begun = Instant::now();
    let (head, _) = get(address, "/healthz");
    assert!(head.starts_with("HTTP/1.1 200 ") && begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    drop(idle);
    // A request in two pieces is one.
    let mut stream = connect(address);
    stream.write_all(b"GET /healthz HT").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(b"TP/1.1\r\n\r\n").unwrap();
    assert!(answer(stream).0.starts_with("HTTP/1.1 200 "));
    let (head, _) = get(address, "/healthz");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    drop(server);
}

#[test]
fn a_worker_that_cannot_be_read_is_said_to_be_so() {
    rustbox_only!();
    let t = Test::new();
    let (server, address) = serve(&t);
    std::fs::create_dir_all(t.path("worker")).unwrap();
    std::fs::write(t.path("worker/metrics"), "nonsense").unwrap();
    let (head, body) = get(address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 500 ") && body.contains("it is no file of rustbox's metrics"), "{head}\n{body}");
    std::fs::remove_file(t.path("worker/metrics")).unwrap();
    assert!(get(address, "/metrics").0.starts_with("HTTP/1.1 200 "));
    drop(server);
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    rustbox_only!();
    let t = Test::new();
    let (server, address) = serve(&t);
    let listen = |address: &str| t.runtime(&["metrics", "--listen", address]);
    listen(&address.to_string()).denied().says(&[&format!("listen at `{address}`"), "Address already in use"]);
    listen("203.0.113.1:9754").denied().says(&["203.0.113.1:9754"]);
    for wrong in ["", "9754", "localhost", "127.0.0.1", "127.0.0.1:99999", ":9754"] {
        listen(wrong).usage().says(&["ADDRESS:PORT"]);
    }
    t.runtime(&["metrics", "--listen", "127.0.0.1:0", "--textfile", "x"]).usage();
    drop(server);
}
