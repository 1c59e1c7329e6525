//! File capabilities as layers hold them (`security.capability`, capabilities(7)).
//!
//! Inside a user namespace the kernel writes version 3, which names the root user of
//! that namespace; in an image it means nothing, so it becomes version 2.

/// The attribute.
pub(super) const NAME: &str = "security.capability";

const VERSION_MASK: u32 = 0xff00_0000;
const VERSION_2: u32 = 0x0200_0000;
const VERSION_3: u32 = 0x0300_0000;
const SIZE_2: usize = 20;
const SIZE_3: usize = 24;

/// Gives a value without the user that version 3 adds.
pub(super) fn portable(value: &[u8]) -> Vec<u8> {
    match value.split_first_chunk() {
        Some((magic, rest)) if value.len() == SIZE_3 => {
            let magic = u32::from_le_bytes(*magic);
            if magic & VERSION_MASK != VERSION_3 {
                return value.to_vec();
            }
            let magic = VERSION_2 | (magic & !VERSION_MASK);
            let sets = &rest[..SIZE_2 - 4];
            [&magic.to_le_bytes()[..], sets].concat()
        }
        _ => value.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_three_becomes_two() {
        let sets = [7; 16];
        let two = [&[1, 0, 0, 2][..], &sets].concat();
        let three = [&[1, 0, 0, 3][..], &sets, &[0x39, 0x30, 0, 0]].concat();
        assert_eq!(portable(&three), two);
        assert_eq!(portable(&two), two);
        for odd in [&b""[..], b"abc", &[9; 24]] {
            assert_eq!(portable(odd), odd);
        }
    }
}
