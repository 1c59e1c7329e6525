//! A call that is made with other arguments than the thread has given, and how they lie
//! in its memory. Pure.

/// Other arguments for a call, and perhaps another call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rewrite {
    /// The number of the call.
    pub(super) number: i64,
    /// Arguments by their position; the others stay.
    pub(super) arguments: Vec<(usize, Value)>,
}

/// What an argument becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// This number.
    Number(u64),
    /// A pointer to these bytes.
    Bytes(Vec<u8>),
    /// A pointer to pointers, which a null pointer ends.
    Pointers(Vec<Pointer>),
    /// A pointer to a message (`struct msghdr` and what follows it) to this name.
    Message(Vec<u8>, Vec<u8>),
}

/// A pointer of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pointer {
    /// To something that is in the memory already.
    There(u64),
    /// To these bytes.
    Bytes(Vec<u8>),
}

/// Bytes for the memory, and the arguments that point to them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) bytes: Vec<u8>,
    pub(super) arguments: Vec<(usize, u64)>,
}

impl Rewrite {
    /// How many bytes of memory it takes.
    pub(super) fn size(&self) -> u64 {
        self.place(0).bytes.len() as u64
    }

    /// Lays everything out from an address on that is a multiple of eight.
    pub(super) fn place(&self, start: u64) -> Placed {
        let mut bytes = Vec::new();
        let arguments = self.arguments.iter().map(|(index, value)| {
            let value = match value {
                Value::Number(number) => *number,
                Value::Bytes(content) => append(&mut bytes, start, content),
                Value::Pointers(pointers) => append_pointers(&mut bytes, start, pointers),
                Value::Message(header, name) => append_message(&mut bytes, start, header, name),
            };
            (*index, value)
        });
        let arguments = arguments.collect();
        Placed { bytes, arguments }
    }
}

/// Gives the address of what was appended.
fn append(bytes: &mut Vec<u8>, start: u64, content: &[u8]) -> u64 {
    let address = start + bytes.len() as u64;
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    address
}

fn append_pointers(bytes: &mut Vec<u8>, start: u64, pointers: &[Pointer]) -> u64 {
    let addresses = pointers.iter().map(|pointer| match pointer {
        Pointer::There(address) => *address,
        Pointer::Bytes(content) => append(bytes, start, content),
    });
    let mut array: Vec<u64> = addresses.collect();
    array.push(0);
    let array: Vec<u8> = array.into_iter().flat_map(u64::to_ne_bytes).collect();
    append(bytes, start, &array)
}

/// The address of the name is the first of a message, and its length the second.
fn append_message(bytes: &mut Vec<u8>, start: u64, header: &[u8], name: &[u8]) -> u64 {
    let address = append(bytes, start, name);
    let mut message = address.to_ne_bytes().to_vec();
    message.extend((name.len() as u32).to_ne_bytes());
    message.extend(header.get(message.len()..).unwrap_or_default());
    append(bytes, start, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_to_what_was_laid_out() {
        let pointers = vec![
            Pointer::Bytes(b"sh\0".into()),
            Pointer::There(0x1234),
            Pointer::Bytes(b"/x/script\0".into()),
        ];
        let rewrite = Rewrite {
            number: 59,
            arguments: vec![
                (0, Value::Bytes(b"/bin/sh\0".into())),
                (1, Value::Pointers(pointers)),
                (2, Value::Number(7)),
            ],
        };
        let placed = rewrite.place(0x1000);
        assert_eq!(placed.bytes.len() as u64, rewrite.size());
        let word = |address: u64| {
            let at = (address - 0x1000) as usize;
            u64::from_ne_bytes(placed.bytes[at..at + 8].try_into().unwrap())
        };
        let text = |address: u64| placed.bytes[(address - 0x1000) as usize..].to_vec();
        let [(0, path), (1, array), (2, 7)] = placed.arguments[..] else {
            panic!("{placed:?}");
        };
        assert_eq!(array % 8, 0);
        assert!(text(path).starts_with(b"/bin/sh\0"));
        assert!(text(word(array)).starts_with(b"sh\0"));
        assert_eq!(word(array + 8), 0x1234);
        assert!(text(word(array + 16)).starts_with(b"/x/script\0"));
        assert_eq!(word(array + 24), 0);
    }

    #[test]
    fn a_message_has_another_name() {
        let header: Vec<u8> = (0..56).collect();
        let rewrite = Rewrite {
            number: 46,
            arguments: vec![(1, Value::Message(header.clone(), b"\x01\0/there\0".into()))],
        };
        let placed = rewrite.place(0x1000);
        let [(1, message)] = placed.arguments[..] else {
            panic!("{placed:?}");
        };
        let message = &placed.bytes[(message - 0x1000) as usize..];
        let name = u64::from_ne_bytes(message[..8].try_into().unwrap());
        assert!(placed.bytes[(name - 0x1000) as usize..].starts_with(b"\x01\0/there\0"));
        assert_eq!(message[8..12], 9_u32.to_ne_bytes());
        assert_eq!(message[12..56], header[12..]);
    }
}
