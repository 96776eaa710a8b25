use super::Setup;

/// The largest message in a segment of 8192 bytes: the mutex in its header is longer on 64-bit Arm.
const LARGEST: u64 = if cfg!(target_arch = "aarch64") { 8120 } else { 8128 };

#[test]
fn a_handoff_channels_objects_are_named_after_it_and_are_for_the_daemons_user_or_its_group() {
    let channel = Setup::new("prefix = \"p\"\n[[channel]]\nname = \"cam\"\nmode = \"handoff\"\nmax = 8192\n").channel();
    assert_eq!(channel.handoff.unwrap().to_string(), "/p.cam (avail /p.cam.avail, done /p.cam.done)");
    assert_eq!((channel.mode, channel.max_message), (0o600, LARGEST));
    let with_group = Setup::new("[[channel]]\nmode = \"handoff\"\ngroup = \"0\"\n").channel();
    assert_eq!(with_group.mode, 0o660);
    let open =
        Setup::new("[[channel]]\nmode = \"handoff\"\npermissions = \"0666\"\navail = \"/sem_avail\"\n").channel();
    assert_eq!((open.mode, open.handoff.unwrap().avail), (0o666, "/sem_avail".to_owned()));
}

#[test]
fn a_ring_has_permissions_and_no_objects_to_name() {
    for text in ["permissions = \"0600\"", "mode = \"ring\"\npermissions = \"0600\""] {
        let channel = Setup::new(&format!("[[channel]]\n{text}\n")).channel();
        assert_eq!((channel.mode, channel.handoff), (0o600, None), "{text}");
    }
}

#[test]
fn what_goes_with_neither_mode_is_refused_at_its_line() {
    let largest = LARGEST.to_string();
    for (text, why) in [
        ("mode = \"fifo\"", "neither \"ring\" nor \"handoff\""),
        ("mode = \"0600\"\npermissions = \"0600\"", "neither \"ring\" nor \"handoff\""),
        ("segment = \"/demo_shm\"", "mode = \"handoff\""),
        ("mode = \"handoff\"\nsegment = \"demo_shm\"", "slash"),
        ("mode = \"handoff\"\navail = \"/a\"\ndone = \"/a\"", "names of their own"),
        ("mode = \"handoff\"\npermissions = \"0060\"", "0660"),
        ("mode = \"handoff\"\nmax = 8192\nmax_message = 8129", largest.as_str()),
        ("mode = \"handoff\"\nalign = 64", "align is for a ring"),
        ("mode = \"handoff\"\nevict_after = \"1s\"", "ack_timeout"),
        ("mode = \"handoff\"\nack = true", "acknowledged"),
        ("mode = \"handoff\"\nwait_readers = 1", "wait_readers is for a ring"),
    ] {
        let refusal = Setup::new(&format!("[[channel]]\n{text}\n")).refusal();
        assert!(refusal.contains(why) && refusal.starts_with("shmd.toml:"), "{text}: {refusal}");
    }
}

#[test]
fn no_two_channels_have_an_object_in_common() {
    let hand = "name = \"hand\"\nmode = \"handoff\"";
    for (other, object, line) in [
        ("name = \"hand.feed\"", "/shmd-1000.hand.feed", 6),
        ("name = \"b\"\nmode = \"handoff\"\nsegment = \"/shmd-1000.hand\"", "/shmd-1000.hand", 8),
        (
            "name = \"b\"\nmode = \"handoff\"\nsegment = \"/x\"\ndone = \"/shmd-1000.hand.avail\"",
            "/sem.shmd-1000.hand.avail",
            9,
        ),
    ] {
        let refusal = Setup::new(&format!("[[channel]]\n{hand}\n\n[[channel]]\n{other}\n")).refusal();
        let names = format!("the object {object}, which channel hand has");
        assert!(refusal.starts_with(&format!("shmd.toml:{line}: ")) && refusal.contains(&names), "{other}: {refusal}");
    }
    let text = format!("[[channel]]\n{hand}\n[[channel]]\nname = \"hand.avail\"\n[[channel]]\nname = \"feed\"\n");
    Setup::new(&text).good();
}
