//! The wire format of protocol buffers, as much of it as CRIU's messages need
//! (<https://protobuf.dev/programming-guides/encoding/>): numbers, texts and nested messages.

/// A message to be sent, built field by field.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number, also of an enumeration; a negative one is 64 bits long, whatever its type.
    pub(super) fn number(&mut self, field: u32, value: i64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value as u64);
        self
    }

    pub(super) fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        self.number(field, value.into())
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn message(&mut self, field: u32, value: &Message) -> &mut Self {
        self.bytes(field, &value.0)
    }
}

/// The value of a field that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Option<u64> {
        match self {
            Value::Number(number) => Some(number),
            Value::Bytes(_) => None,
        }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            Value::Number(_) => None,
        }
    }
}

/// The fields of a message, in their order; `None` where it is none.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let field = u32::try_from(tag >> 3).ok()?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        fields.push((field, value));
    }
    Some(fields)
}

/// The last value of a field: that is the one that counts.
pub(super) fn last<'a>(fields: &[(u32, Value<'a>)], field: u32) -> Option<Value<'a>> {
    fields.iter().rev().find(|(number, _)| *number == field).map(|(_, value)| *value)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_format_s_documentation() {
        let mut message = Message::default();
        message.number(1, 150).bytes(2, b"testing");
        assert_eq!(message.as_bytes(), b"\x08\x96\x01\x12\x07testing");
        let mut outer = Message::default();
        outer.message(3, Message::default().number(1, 150));
        assert_eq!(outer.as_bytes(), b"\x1a\x03\x08\x96\x01");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::default();
        message.number(1, -1).flag(16, true).bytes(68, b"").number(1, 7);
        let fields = fields(message.as_bytes()).unwrap();
        assert_eq!(fields[0], (1, Value::Number(u64::MAX)));
        assert_eq!(last(&fields, 16).and_then(Value::number), Some(1));
        assert_eq!(last(&fields, 68).and_then(Value::bytes), Some(&b""[..]));
        assert_eq!(last(&fields, 1).and_then(Value::number), Some(7));
        assert_eq!(last(&fields, 2), None);
    }

    #[test]
    fn garbage_is_no_message() {
        for bytes in [&b"\x08"[..], b"\x08\x96", b"\x12\x07test", b"\x0d\x01\x02", &[0xff; 20]] {
            assert_eq!(fields(bytes), None, "{bytes:?}");
        }
    }
}
