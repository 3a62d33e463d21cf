//! Hexadecimal digits from a table, for the hot path.

/// The two digits of a byte, in lower case.
pub(crate) const fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: [[u8; 2]; 256] = {
        let mut all = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            let digits = b"0123456789abcdef";
            all[byte] = [digits[byte >> 4], digits[byte & 0xf]];
            byte += 1;
        }
        all
    };
    DIGITS[byte as usize]
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_is_written_as_the_standard_library_writes_it() {
        for byte in 0..=u8::MAX {
            assert_eq!(super::digits(byte), format!("{byte:02x}").as_bytes());
        }
    }
}
