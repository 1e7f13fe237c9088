"""
A small client of the Container Runtime Interface (runtime.v1), without generated code.

A message is a dict: field number → int, str, bytes, dict (a message), or a list of these (repeated). The numbers are those
of the published api.proto; where they are used, the field's name stands beside them.
"""

import base64
import os
import socket
import struct

import grpc

from engine import Failed


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def encode(message):
    out = b""
    for number, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                out += varint(number << 3) + varint(one)
                continue
            data = encode(one) if isinstance(one, dict) else one.encode() if isinstance(one, str) else one
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


class Message:
    """A received message; what a field holds is said by whoever asks for it."""

    def __init__(self, data):
        self.fields = {}
        at = 0

        def number():
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return value

        while at < len(data):
            key = number()
            if key & 7 == 0:
                value = number()
            else:
                size = number() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
                value = data[at : at + size]
                at += size
            self.fields.setdefault(key >> 3, []).append(value)

    def message(self, number):
        return Message(self.fields.get(number, [b""])[-1])

    def text(self, number):
        return self.fields.get(number, [b""])[-1].decode()

    def integer(self, number):
        return self.fields.get(number, [0])[-1]


class Cri:
    """The runtime service behind a socket."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(f"unix://{address}")

    def __call__(self, method, request, timeout=30):
        call = self.channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}", request_serializer=encode, response_deserializer=Message
        )
        try:
            return call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise Failed(f"{method}: {error.code().name}: {error.details()}") from None


def stream(url, stdin=b""):
    """
    Reads the streams behind the address that Exec answers with, by WebSocket with the kubelet's sub-protocol: each frame
    begins with its stream's number, 0 stdin, 1 stdout, 2 stderr, 3 the status. Returns the bytes of each.
    """
    host, path = url.removeprefix("http://").split("/", 1)
    name, port = host.rsplit(":", 1)
    streams = {1: b"", 2: b"", 3: b""}
    with socket.create_connection((name, int(port)), timeout=20) as connection:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://{host}\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        with connection.makefile("rb") as answer:
            status = answer.readline()
            if b" 101 " not in status:
                raise Failed(f"the stream at {url} answers {status!r}")
            while answer.readline().strip():
                pass
            if stdin:
                # A client's frames are masked (RFC 6455, section 5.3); a mask of zeros leaves them readable.
                frame = b"\x00" + stdin
                connection.sendall(struct.pack("!BB", 0x82, 0x80 | len(frame)) + bytes(4) + frame)
            while True:
                head = answer.read(2)
                if len(head) < 2 or head[0] & 0x0F == 8:
                    return streams
                size = head[1] & 0x7F
                if size > 125:
                    size = int.from_bytes(answer.read(2 if size == 126 else 8), "big")
                frame = answer.read(size)
                if frame and frame[0] in streams:
                    streams[frame[0]] += frame[1:]
