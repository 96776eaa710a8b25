use shm_proto::{Content, Schema};

use super::*;

fn declared(keys: &str) -> super::super::Declared {
    Setup::new(&format!("[[channel]]\n{keys}")).channel().declared
}

#[test]
fn what_is_declared_is_what_programs_are_told() {
    assert_eq!(declared("").content, None);
    assert_eq!(declared("content = \"\"\nschema = \"\"\nschema_file = \"\"").content, None);
    assert_eq!(declared("content = \"image/jpeg\"").content, Some(Content::new("image/jpeg".to_owned())));
    let whole =
        declared("content = \"cdr\"\nschema = \"a/b\"\nschema_encoding = \"ros2msg\"\nschema_text = \"int8 x\"");
    let schema = Schema::new("a/b".to_owned(), "ros2msg".to_owned(), b"int8 x");
    assert_eq!(whole.content.as_ref().unwrap().schema, Some(schema));
    assert_eq!((whole.text.as_ref().unwrap().inline(), whole.text.as_ref().unwrap().file()), (Some("int8 x"), None));
    let named = declared("content = \"cdr\"\nschema = \"a/b\"");
    assert_eq!((named.content.unwrap().to_string(), named.text), ("cdr:a/b".to_owned(), None));
}

#[test]
fn a_schema_may_be_in_a_file_of_any_bytes_and_what_is_no_such_file_is_refused() {
    let dir = TempDir::new();
    let path = dir.path().join("schema");
    let file = |path: &Path| {
        Setup::new(&format!(
            "[[channel]]\ncontent = \"p\"\nschema = \"F\"\nschema_file = {:?}",
            path.display().to_string()
        ))
    };
    fs::write(&path, [0xff; 10]).unwrap();
    let read = file(&path).channel().declared;
    assert_eq!(read.content.as_ref().unwrap().schema.as_ref().unwrap().bytes, 10);
    assert_eq!((read.text.as_ref().unwrap().inline(), read.text.as_ref().unwrap().file()), (None, path.to_str()));
    for (bytes, reason) in [(0, "is empty"), (1 << 20, ""), ((1 << 20) + 1, "has 1048577 bytes, at most 1048576")] {
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        match file(&path).load() {
            Ok(_) => assert!(reason.is_empty(), "{bytes}"),
            Err(e) => assert!(e.to_string().contains(reason) && !reason.is_empty(), "{bytes}: {e}"),
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(file(&path).refusal().contains("No such file"));
    // Nobody waits for somebody who writes to it.
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(file(&path).refusal().contains("not a regular file"));
    assert!(file(dir.path()).refusal().contains("not a regular file"));
    assert!(file(Path::new("relative")).refusal().contains("must be an absolute path"));
}

#[test]
fn only_the_text_of_a_schema_may_change_behind_the_same_names() {
    let of = |schema: &str, text: &str| {
        declared(&format!("content = \"p\"\nschema = \"{schema}\"\nschema_text = \"{text}\""))
    };
    let (one, other) = (of("F", "one"), of("F", "other"));
    assert!(one.names_are_those_of(&other) && one != other && one.digest() != other.digest());
    assert!(!one.names_are_those_of(&of("G", "one")) && !one.names_are_those_of(&declared("")));
    assert!(!one.names_are_those_of(&declared("content = \"p\"")));
    assert_eq!(declared("content = \"p\"").digest(), "no text");
}
