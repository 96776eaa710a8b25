//! Messages that are refused and passed over.

use super::*;

/// What a pump publishes, and what it refuses and passes over.
fn passing_over(framing: Framing, max: u64, input: &[u8], sizes: &[usize]) -> (Vec<Vec<u8>>, Vec<String>, bool) {
    let mut pump = Pump::new(framing, max).unwrap().requiring_whole_chunks();
    let (mut list, mut pieces) = (List::new(true), Pieces::cut(input, sizes));
    let (mut refused, mut goes_on) = (Vec::new(), true);
    loop {
        match pump.step(&mut pieces, &mut list) {
            Ok(Step::Eof) => return (list.messages, refused, goes_on),
            Ok(_) => {}
            Err(e) => {
                refused.push(e.to_string());
                goes_on = pump.pass_over();
            }
        }
    }
}

#[test]
fn a_line_that_is_too_long_is_passed_over_and_the_next_one_taken() {
    for sizes in [&[1][..], &[3, 7], &[100]] {
        let input = b"one\nthis is too long\ntwo\nand so is this one\n\nthree";
        let (messages, refused, goes_on) = passing_over(Framing::Lines, 5, input, sizes);
        assert_eq!(messages, [&b"one"[..], b"two", b"", b"three"], "{sizes:?}");
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(goes_on);
    }
    let (messages, refused, _) = passing_over(Framing::Nul, 3, b"toolong", &[4, 3]);
    assert!(messages.is_empty() && refused.len() == 1, "{refused:?}");
}

#[test]
fn after_a_length_that_cannot_be_everything_is_passed_over() {
    let mut input = Vec::new();
    for message in [&b"good"[..], b"far too long", b"good"] {
        input.extend((message.len() as u32).to_le_bytes());
        input.extend(message);
    }
    let (messages, refused, goes_on) = passing_over(Framing::Length, 8, &input, &[3]);
    assert_eq!((messages, refused.len(), goes_on), (vec![b"good".to_vec()], 1, false));
}

#[test]
fn a_chunk_cut_short_is_an_error_where_whole_ones_are_required() {
    for (chunk, len) in [(4, 7), (IN_PLACE + FIRST, IN_PLACE + FIRST + 5000), (IN_PLACE + FIRST, 2 * IN_PLACE)] {
        let (messages, refused, _) = passing_over(Framing::Chunk(chunk as u64), 1 << 20, &vec![7; len], &[1000]);
        assert_eq!(messages.concat(), vec![7; len / chunk * chunk]);
        let wanted = format!("the input ends after {} of {chunk} bytes", len % chunk);
        assert!(refused.len() == 1 && refused[0].contains(&wanted), "{refused:?}");
    }
}

#[test]
fn what_follows_a_message_that_was_passed_over_needs_no_input() {
    let mut pump = Pump::new(Framing::Lines, 3).unwrap();
    let (mut input, mut list) = (&b"a\nlonger\nb\nc\n"[..], List::new(false));
    assert!(pump.step(&mut input, &mut list).is_err());
    assert!(pump.pass_over() && pump.has_more());
    assert_eq!(pump.step(&mut io::empty(), &mut list).unwrap(), Step::Published(2));
    assert!(!pump.has_more());
    assert_eq!(list.messages, [b"a", b"b", b"c"]);
}
