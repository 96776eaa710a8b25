//! A message as offsets, bytes and text, as `hexdump -C` shows a file.

use std::io::Write;

/// Bytes of a line.
const WIDTH: usize = 16;

/// Appends the lines for these bytes, none for no bytes.
pub(super) fn append(bytes: &[u8], out: &mut Vec<u8>) {
    for (number, line) in bytes.chunks(WIDTH).enumerate() {
        // A vector takes everything.
        let _ = write!(out, "{:08x} ", number * WIDTH);
        for place in 0..WIDTH {
            out.extend_from_slice(if place == WIDTH / 2 { b"  " } else { b" " });
            let _ = match line.get(place) {
                Some(byte) => write!(out, "{byte:02x}"),
                None => out.write_all(b"  "),
            };
        }
        out.extend_from_slice(b"  |");
        out.extend(line.iter().map(|&byte| if (b' '..=b'~').contains(&byte) { byte } else { b'.' }));
        out.extend_from_slice(b"|\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_hexdump() {
        let mut out = Vec::new();
        append(b"hello, world\n\0\xff~and", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\
00000000  68 65 6c 6c 6f 2c 20 77  6f 72 6c 64 0a 00 ff 7e  |hello, world...~|
00000010  61 6e 64                                          |and|
"
        );
        let mut out = Vec::new();
        append(b"", &mut out);
        assert!(out.is_empty());
    }
}
