//! A line of a batch as the request it means: a JSON object whose keys are the long option names of `run`, with underscores.
//!
//! The table of options is `run`'s own, so that a job and a command line cannot mean different things.

use clap::{Args as _, FromArgMatches};
use serde_json::{Map, Value};

use crate::cli::judge_args::JudgeArgs;
use crate::error::{Error, Result};
use crate::judge::batch::Job;
use crate::judge::run::{Input, Request};

/// Keys that `run` has no option for, or another meaning.
const OWN: [&str; 4] = ["id", "argv", "stdin", "stdin_file"];
/// Options that say where the verdict and the output go, which the batch decides.
const NOT_HERE: [&str; 3] = ["json", "stdout", "stderr"];

/// Understands lines.
#[derive(Debug)]
pub struct Reader {
    command: clap::Command,
    permissive: bool,
}

impl Reader {
    /// With `permissive`, every job is.
    pub fn new(permissive: bool) -> Reader {
        let command = clap::Command::new("job").no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
        let bundle = clap::Arg::new("bundle").long("bundle").value_name("DIR");
        let mut command = JudgeArgs::augment_args(command).arg(bundle);
        command.build();
        Reader { command, permissive }
    }

    /// Understands a line.
    pub fn job(&mut self, line: &[u8]) -> Job {
        let job: Map<String, Value> = match serde_json::from_slice(line) {
            Ok(job) => job,
            Err(error) => return Job { id: None, request: Err(Error::Usage(format!("no JSON object: {error}"))) },
        };
        let id = job.get("id").and_then(Value::as_str).map(str::to_owned);
        let request = self.request(job);
        Job { id, request }
    }

    fn request(&mut self, mut job: Map<String, Value>) -> Result<Request> {
        if job.remove("id").is_some_and(|id| !id.is_string()) {
            return Err(Error::Usage("`id` is not a string".to_owned()));
        }
        let argv = job.remove("argv");
        let stdin = job.remove("stdin");
        let mut words = Vec::with_capacity(job.len());
        for (key, value) in &job {
            let key = if key == "stdin_file" { "stdin" } else { key };
            self.option(key, value, &mut words)?;
        }
        if let Some(argv) = argv {
            words.push("--".to_owned());
            words.extend(texts("argv", &argv)?);
        }
        let mut matches = self.command.try_get_matches_from_mut(words).map_err(usage)?;
        let bundle: Option<String> = matches.remove_one("bundle");
        let args = JudgeArgs::from_arg_matches_mut(&mut matches).map_err(usage)?;
        let mut request = args.request(std::path::Path::new(bundle.as_deref().unwrap_or(".")))?;
        request.permissive |= self.permissive;
        match stdin {
            None => {}
            Some(_) if job.contains_key("stdin_file") => {
                return Err(Error::Usage("`stdin` and `stdin_file` exclude each other".to_owned()));
            }
            Some(Value::String(text)) => request.stdin = Input::Bytes(text.into_bytes()),
            Some(_) => return Err(Error::Usage("`stdin` is not a string; see `stdin_file`".to_owned())),
        }
        Ok(request)
    }

    /// An option as `run` is given it: `--key=value`, again for each of a list.
    fn option(&self, key: &str, value: &Value, words: &mut Vec<String>) -> Result<()> {
        let name = key.replace('_', "-");
        let known = self.command.get_arguments().find(|it| it.get_long() == Some(&name));
        let Some(option) = known.filter(|_| !NOT_HERE.contains(&key) && !key.contains('-')) else {
            let mut keys: Vec<String> = self
                .command
                .get_arguments()
                .filter_map(|it| Some(it.get_long()?.replace('-', "_")))
                .filter(|it| !NOT_HERE.contains(&it.as_str()))
                .chain(OWN.map(str::to_owned))
                .collect();
            keys.sort();
            keys.dedup();
            return Err(Error::Usage(format!("key `{key}` is unknown; there are {}", keys.join(", "))));
        };
        if !option.get_action().takes_values() {
            return match value {
                Value::Bool(true) => {
                    words.push(format!("--{name}"));
                    Ok(())
                }
                Value::Bool(false) | Value::Null => Ok(()),
                _ => Err(Error::Usage(format!("`{key}` is neither true nor false"))),
            };
        }
        let list = matches!(option.get_action(), clap::ArgAction::Append);
        match value {
            Value::Null => {}
            Value::String(text) if key == "stdin" && text == "-" => {
                return Err(Error::Usage("a job's standard input is no `-`: that holds the jobs".to_owned()));
            }
            Value::String(text) => words.push(format!("--{name}={text}")),
            Value::Number(number) => words.push(format!("--{name}={number}")),
            value if list => words.extend(texts(key, value)?.into_iter().map(|text| format!("--{name}={text}"))),
            _ => return Err(Error::Usage(format!("`{key}` is neither a string nor a number"))),
        }
        Ok(())
    }
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let all = value.as_array().and_then(|list| list.iter().map(text).collect::<Option<Vec<_>>>());
    all.ok_or_else(|| Error::Usage(format!("`{key}` is not a list of strings")))
}

/// The first line of what clap says, which is the one that matters here.
fn usage(error: clap::Error) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("the job makes no sense");
    Error::Usage(first.strip_prefix("error: ").unwrap_or(first).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(text: &str) -> Job {
        Reader::new(false).job(text.as_bytes())
    }

    #[test]
    fn a_job_is_what_the_command_line_would_be() {
        let job = job(r#"{"id":"a","code":"cat","stdin":"x","time":1.5,"wall_time":"3s","memory":"64M","processes":4,
                "env":["A=b","C=d"],"permissive":true,"dir":["/data=/tmp"]}"#);
        let request = job.request.unwrap();
        assert_eq!(job.id.as_deref(), Some("a"));
        let limits = (request.limits.time, request.limits.wall_time, request.limits.memory, request.limits.processes);
        assert_eq!(limits, (Some(1500), Some(3000), Some(64 << 20), Some(4)));
        assert_eq!((request.env.len(), request.shares.len(), request.permissive), (2, 1, true));
        assert!(matches!(request.stdin, Input::Bytes(bytes) if bytes == b"x"));
    }

    #[test]
    fn what_is_wrong_with_a_job_is_said() {
        for (text, words) in [
            ("nonsense", "no JSON object"),
            ("[1]", "no JSON object"),
            (r#"{"code":"x","tme":1}"#, "key `tme` is unknown"),
            (r#"{"code":"x","wall-time":1}"#, "key `wall-time` is unknown"),
            (r#"{"code":"x","json":true}"#, "key `json` is unknown"),
            (r#"{"code":"x","stdout":"/tmp/x"}"#, "key `stdout` is unknown"),
            (r#"{"code":"x","time":"soon"}"#, "soon"),
            (r#"{"code":"x","time":[1]}"#, "`time` is neither"),
            (r#"{"code":"x","permissive":"yes"}"#, "neither true nor false"),
            (r#"{"code":"x","argv":["true"]}"#, "cannot be used with"),
            (r#"{"argv":"true"}"#, "`argv` is not a list of strings"),
            (r#"{"id":"a"}"#, "nothing to judge"),
            (r#"{"id":7,"code":"x"}"#, "`id` is not a string"),
            (r#"{"code":"x","stdin":1}"#, "`stdin` is not a string"),
            (r#"{"code":"x","stdin":"a","stdin_file":"/etc/passwd"}"#, "exclude each other"),
            (r#"{"code":"x","stdin_file":"-"}"#, "holds the jobs"),
            (r#"{"code":"x","language":"cobol"}"#, "language `cobol` is unknown"),
            (r#"{"source":"/nowhere.sh"}"#, "/nowhere.sh"),
            (r#"{"code":"x","env":["A"]}"#, "not K=V"),
        ] {
            let said = job(text).request.unwrap_err().to_string();
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
