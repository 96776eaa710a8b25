//! From bytes to keys, and from a key to the next state and what is to be done.

use shm_proto::{Bytes, Request};

use super::control::{Control, Footer, Sort};
use super::figures::{Channel, Figures, Reader};
use crate::condition::name;

/// The footer's line about the keys. The most important ones come first, because a narrow terminal shows only those.
pub(super) fn help(sort: Sort) -> String {
    let sort = sort.word();
    format!("q quit  \u{2191}\u{2193} channel  \u{2190}\u{2192} reader  s sort ({sort})  p pause  r resize  e evict")
}

/// The longest size that can be typed.
const LONGEST: usize = 20;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Left,
    Right,
    Enter,
    Escape,
    Erase,
    Letter(char),
}

/// What a key asks for, besides another state.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Quit,
    Ask(Request),
}

/// The keys that a terminal reports with these bytes. Keys without a meaning here are left out.
pub(super) fn decode(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        rest = after;
        let key = match (first, after) {
            (0x1b, [b'[' | b'O', sequence @ ..]) => {
                // Numbers and semicolons, and then a letter that says what it is.
                let last = sequence.iter().position(|byte| (0x40..0x7f).contains(byte));
                let (end, last) = last.map_or((sequence.len(), 0), |at| (at + 1, sequence[at]));
                rest = &sequence[end..];
                match last {
                    b'A' => Some(Key::Up),
                    b'B' => Some(Key::Down),
                    b'C' => Some(Key::Right),
                    b'D' => Some(Key::Left),
                    _ => None,
                }
            }
            (0x1b, _) => Some(Key::Escape),
            (b'\r' | b'\n', _) => Some(Key::Enter),
            (0x7f | 0x08, _) => Some(Key::Erase),
            (b' '..=b'~', _) => Some(Key::Letter(char::from(*first))),
            _ => None,
        };
        keys.extend(key);
    }
    keys
}

/// What a key leads to.
pub(super) fn press(control: Control, key: Key, figures: &Figures) -> (Control, Option<Action>) {
    match control.footer.clone() {
        Footer::Size { channel, now, typed } => {
            let size = Footer::Size { channel: channel.clone(), now, typed: typed.clone() };
            let footer = match key {
                Key::Escape => Footer::Keys,
                Key::Enter => match typed.parse::<Bytes>() {
                    Ok(bytes) => {
                        let request = Request::Resize { channel: Some(channel.clone()), bytes: bytes.get() };
                        confirm(format!("resize {channel} from {} to {bytes}", Bytes(now)), request)
                    }
                    Err(error) => Footer::Outcome { text: error.to_string(), is_bad: true },
                },
                Key::Erase => {
                    let typed = typed[..typed.len().saturating_sub(1)].to_owned();
                    Footer::Size { channel, now, typed }
                }
                Key::Letter(c) if (c.is_ascii_digit() || "KMGkmgiIBb".contains(c)) && typed.len() < LONGEST => {
                    Footer::Size { channel, now, typed: format!("{typed}{c}") }
                }
                _ => size,
            };
            (Control { footer, ..control }, None)
        }
        Footer::Confirm { request, doing, .. } => match key {
            Key::Letter('y' | 'Y') if has_gone(&request, &doing, figures) => {
                let text = format!("cannot {doing}: it has detached");
                (Control { footer: Footer::Outcome { text, is_bad: true }, ..control }, None)
            }
            Key::Letter('y' | 'Y') => {
                (Control { footer: Footer::Waiting { doing }, ..control }, Some(Action::Ask(request)))
            }
            Key::Escape | Key::Letter('n' | 'N' | 'q') => (Control { footer: Footer::Keys, ..control }, None),
            _ => (control, None),
        },
        Footer::Waiting { .. } => look_around(control, key, figures),
        Footer::Keys | Footer::Outcome { .. } => {
            let control = Control { footer: Footer::Keys, ..control };
            match key {
                Key::Letter('r') => (ask_for_size(control, figures), None),
                Key::Letter('e') => (ask_whether_to_evict(control, figures), None),
                key => look_around(control, key, figures),
            }
        }
    }
}

/// The keys that change nothing in the daemon.
fn look_around(mut control: Control, key: Key, figures: &Figures) -> (Control, Option<Action>) {
    match key {
        Key::Letter('q' | 'Q') => return (control, Some(Action::Quit)),
        Key::Letter('s') => control.sort = control.sort.next(),
        Key::Letter('p' | ' ') => control.is_paused = !control.is_paused,
        Key::Up | Key::Letter('k') => choose_channel(&mut control, figures, -1),
        Key::Down | Key::Letter('j') => choose_channel(&mut control, figures, 1),
        Key::Left | Key::Letter('h') => choose_reader(&mut control, figures, -1),
        Key::Right | Key::Letter('l') => choose_reader(&mut control, figures, 1),
        _ => {}
    }
    (control, None)
}

fn choose_channel(control: &mut Control, figures: &Figures, step: isize) {
    let channels = control.channels(figures);
    let Some((place, _)) = control.chosen(figures) else { return };
    let next = place.saturating_add_signed(step).min(channels.len() - 1);
    if next != place {
        control.channel = Some(channels[next].stat.channel.clone());
        control.reader = None;
    }
}

fn choose_reader(control: &mut Control, figures: &Figures, step: isize) {
    let Some((_, channel)) = control.chosen(figures) else { return };
    let Some((place, _)) = control.chosen_reader(channel) else { return };
    let readers = control.readers(channel);
    let next = place.saturating_add_signed(step).min(readers.len() - 1);
    // From now on it is this channel, also if another one becomes the first.
    control.channel = Some(channel.stat.channel.clone());
    control.reader = Some(readers[next].stat.reader);
}

fn ask_for_size(control: Control, figures: &Figures) -> Control {
    let Some((_, channel)) = control.chosen(figures) else { return control };
    let (channel, now) = (channel.stat.channel.clone(), channel.stat.capacity);
    Control { footer: Footer::Size { channel, now, typed: String::new() }, ..control }
}

fn ask_whether_to_evict(control: Control, figures: &Figures) -> Control {
    let Some((_, channel)) = control.chosen(figures) else { return control };
    let of = &channel.stat.channel;
    let footer = match control.chosen_reader(channel) {
        Some((_, reader)) => {
            let request = Request::Evict { channel: Some(of.clone()), reader: reader.stat.reader };
            confirm(evicting(channel, reader), request)
        }
        None => Footer::Outcome { text: format!("channel {of} has no reader"), is_bad: true },
    };
    Control { footer, ..control }
}

fn evicting(channel: &Channel, reader: &Reader) -> String {
    format!("evict {} of {}", name(&reader.stat), channel.stat.channel)
}

/// Whether the reader that the question named is no longer there. Its number may be another reader's: the next daemon counts anew.
fn has_gone(request: &Request, doing: &str, figures: &Figures) -> bool {
    let Request::Evict { channel: Some(of), reader } = request else { return false };
    let channel = figures.channels.iter().find(|channel| channel.stat.channel == *of);
    let reader = channel.and_then(|channel| Some((channel, channel.reader(*reader)?)));
    reader.is_none_or(|(channel, reader)| evicting(channel, reader) != doing)
}

fn confirm(doing: String, request: Request) -> Footer {
    Footer::Confirm { question: format!("{doing}?"), request, doing }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{after, channel, full, reader};
    use super::*;

    fn figures() -> Figures {
        let mut a = channel("a", 10);
        a.readers.extend([reader(1, 5, 5), reader(2, 10, 0)]);
        after([vec![a, full("b", 10, reader(7, 1, 9)), channel("c", 0)]])
    }

    /// The state after these keys, and what they ask for.
    fn typed(mut control: Control, text: &str) -> (Control, Vec<Action>) {
        let (figures, mut actions) = (figures(), Vec::new());
        for key in decode(text.as_bytes()) {
            let (next, action) = press(control, key, &figures);
            control = next;
            actions.extend(action);
        }
        (control, actions)
    }

    fn chosen(text: &str) -> (String, Option<u32>) {
        let (figures, (control, actions)) = (figures(), typed(Control::default(), text));
        assert_eq!(actions, []);
        let channel = control.chosen(&figures).unwrap().1;
        let reader = control.chosen_reader(channel).map(|(_, reader)| reader.stat.reader);
        (channel.stat.channel.to_string(), reader)
    }

    #[test]
    fn bytes_are_keys() {
        for (bytes, keys) in [
            (&b"\x1b[A\x1b[B\x1bOC\x1bOD"[..], &[Key::Up, Key::Down, Key::Right, Key::Left][..]),
            (b"q\r\n\x7f\x08", &[Key::Letter('q'), Key::Enter, Key::Enter, Key::Erase, Key::Erase]),
            (b"\x1b", &[Key::Escape]),
            (b"\x1bq", &[Key::Escape, Key::Letter('q')]),
            // Delete, Ctrl and an arrow, a part of a sequence, Ctrl-A, an umlaut.
            (b"\x1b[3~\x1b[1;5A\x01\xc3\xa4\x1b[1", &[Key::Up]),
        ] {
            assert_eq!(decode(bytes), keys, "{bytes:?}");
        }
    }

    #[test]
    fn arrows_choose_a_channel_and_a_reader_and_stop_at_the_ends() {
        for (text, channel, reader) in [
            ("", "a", Some(1)),
            ("\x1b[A", "a", Some(1)),
            ("\x1b[B", "b", Some(7)),
            ("jjjj", "c", None),
            ("jjk", "b", Some(7)),
            ("l", "a", Some(2)),
            ("\x1b[C\x1b[C\x1b[C", "a", Some(2)),
            ("lh", "a", Some(1)),
            ("h", "a", Some(1)),
            // A reader's number of another channel is no choice here.
            ("ljk", "a", Some(1)),
            ("jjl", "c", None),
        ] {
            assert_eq!(chosen(text), (channel.to_owned(), reader), "{text:?}");
        }
    }

    #[test]
    fn q_ends_it_and_the_other_keys_change_the_view() {
        assert_eq!(typed(Control::default(), "q").1, [Action::Quit]);
        let (control, actions) = typed(Control::default(), "ssp");
        assert_eq!((control.sort, control.is_paused, actions), (Sort::Rate, true, Vec::new()));
        assert!(!typed(control, "p").0.is_paused);
    }

    #[test]
    fn an_eviction_is_confirmed_first() {
        let evict = Request::Evict { channel: Some("b".parse().unwrap()), reader: 7 };
        let (control, actions) = typed(Control::default(), "je");
        assert_eq!(actions, []);
        let Footer::Confirm { question, .. } = &control.footer else { panic!("{control:?}") };
        assert_eq!(question, "evict reader 7 (view, pid 4707, user me) of b?");
        // A slip of the finger is no answer.
        assert_eq!(typed(control.clone(), "x\r s").0.footer, control.footer);
        for no in ["n", "\x1b", "q"] {
            let (control, actions) = typed(control.clone(), no);
            assert_eq!((control.footer, actions), (Footer::Keys, Vec::new()), "{no:?}");
        }
        let (control, actions) = typed(control, "y");
        assert_eq!(actions, [Action::Ask(evict)]);
        assert!(matches!(&control.footer, Footer::Waiting { doing } if doing.starts_with("evict reader 7")));
        // Until it is answered, there is no other request, and q still ends the view.
        let (control, actions) = typed(control, "yrejq");
        assert_eq!(actions, [Action::Quit]);
        assert!(matches!(control.footer, Footer::Waiting { .. }));
    }

    #[test]
    fn a_reader_that_has_gone_is_not_evicted_and_nor_is_the_next_one_with_its_number() {
        let (asked, _) = typed(Control::default(), "je");
        let mut other = reader(7, 1, 9);
        other.pid += 1;
        for readers in [Vec::new(), vec![other]] {
            let mut b = channel("b", 10);
            b.readers = readers;
            let (control, action) = press(asked.clone(), Key::Letter('y'), &after([vec![b]]));
            assert_eq!(action, None);
            let Footer::Outcome { text, is_bad: true } = control.footer else { panic!("{control:?}") };
            assert_eq!(text, "cannot evict reader 7 (view, pid 4707, user me) of b: it has detached");
        }
    }

    #[test]
    fn a_size_is_typed_and_confirmed() {
        let resize = Request::Resize { channel: Some("a".parse().unwrap()), bytes: 4 << 20 };
        let (control, actions) = typed(Control::default(), "rqx49\x7fMiB");
        assert_eq!(actions, []);
        assert!(matches!(&control.footer, Footer::Size { typed, now: 1048576, .. } if typed == "4MiB"), "{control:?}");
        let (control, actions) = typed(control, "\r");
        assert_eq!(actions, []);
        let Footer::Confirm { question, .. } = &control.footer else { panic!("{control:?}") };
        assert_eq!(question, "resize a from 1MiB to 4MiB?");
        assert_eq!(typed(control, "y").1, [Action::Ask(resize)]);
        assert_eq!(typed(Control::default(), "r4\x1b").0.footer, Footer::Keys);
        for text in ["r\r", "rMiB\r", "r99999999999999999999999999999\r", "r\x7f\x7f\r"] {
            let (control, actions) = typed(Control::default(), text);
            let Footer::Outcome { text: told, is_bad: true } = control.footer else { panic!("{text:?}: {control:?}") };
            assert!(told.contains("64KiB") && actions.is_empty(), "{text:?}: {told}");
        }
    }

    #[test]
    fn without_a_reader_or_a_channel_there_is_nothing_to_do_and_an_outcome_stays_until_a_key() {
        let (control, _) = typed(Control::default(), "jje");
        assert!(matches!(&control.footer, Footer::Outcome { text, .. } if text == "channel c has no reader"));
        assert_eq!(typed(control, "x").0.footer, Footer::Keys);
        for key in [Key::Letter('e'), Key::Letter('r'), Key::Down, Key::Right] {
            let (control, action) = press(Control::default(), key, &after([]));
            assert_eq!((control.footer, action), (Footer::Keys, None), "{key:?}");
        }
    }
}
