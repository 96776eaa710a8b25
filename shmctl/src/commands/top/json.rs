//! What `top --once --json` prints: the objects of `stat --json` with what only two looks can tell.

use serde_json::{Value, json};

use super::figures::{Channel, Figures, Oldest, Reader};
use crate::condition::Condition;
use crate::error::{Failure, Result};

/// The object that is printed.
pub(super) fn document(figures: &Figures) -> Result<Value> {
    let channels: Vec<Value> =
        figures.channels.iter().map(|channel| describe(channel, figures)).collect::<Result<_>>()?;
    Ok(json!({
        "interval_s": figures.between.map(|time| time.as_secs_f64()),
        "channels": channels,
        "operations": object(&figures.operations)?,
    }))
}

fn describe(channel: &Channel, figures: &Figures) -> Result<Value> {
    let mut value = object(&channel.stat)?;
    let rate = channel.rate;
    value["state"] = Condition::of(&channel.stat).word().into();
    value["messages_per_s"] = json!(rate.map(|rate| rate.messages_per_s));
    value["bytes_per_s"] = json!(rate.map(|rate| rate.bytes_per_s));
    value["held_up"] = channel.held.as_ref().map_or(Value::Null, |held| {
        json!({
            "reader": held.reader,
            "what": channel.blame(figures.at),
            "for_s": held.since.time(figures.at).as_secs_f64(),
            "may_be_longer": held.since.may_be_longer,
        })
    });
    let readers: Result<Vec<Value>> = channel.readers.iter().map(|reader| describe_reader(reader, figures)).collect();
    value["readers"] = readers?.into();
    Ok(value)
}

fn describe_reader(reader: &Reader, figures: &Figures) -> Result<Value> {
    let mut value = object(&reader.stat)?;
    value["messages_per_s"] = json!(reader.rate);
    let at_least = match reader.oldest(figures.at) {
        Oldest::AtLeast(time) => Some(time.as_secs_f64()),
        Oldest::Exactly(_) | Oldest::Unknown => None,
    };
    value["oldest_unread_at_least_s"] = json!(at_least);
    Ok(value)
}

fn object(value: impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Failure::Other(format!("cannot write JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::log::{LogEntry, LogEvent, Severity};

    use super::super::figures::tests::{after, channel, full, reader};
    use super::*;

    #[test]
    fn it_is_what_stat_says_with_rates_a_culprit_and_operations() {
        let look = |messages| {
            let mut cam = full("cam", messages, reader(3, 10, messages - 10));
            cam.messages_per_s = 4711.0;
            cam.readers.push(reader(4, messages, 0));
            vec![cam, channel("imu", 0)]
        };
        let mut figures = after([look(100), look(150)]);
        figures.log(vec![LogEntry::new(Severity::Info, LogEvent::Grow)]);
        let document = document(&figures).unwrap();
        assert_eq!(document["interval_s"], json!(1.0));
        assert_eq!(document["operations"][0]["event"], "grow");
        let [cam, imu] = document["channels"].as_array().unwrap().as_slice() else { panic!("{document}") };
        for (key, value) in [
            ("channel", json!("cam")),
            ("state", json!("full")),
            ("messages", json!(150)),
            // Measured here, and not the daemon's.
            ("messages_per_s", json!(50.0)),
            ("bytes_per_s", json!(500.0)),
            ("capacity", json!(1 << 20)),
        ] {
            assert_eq!(cam[key], value, "{key}");
        }
        let held = &cam["held_up"];
        assert_eq!((&held["reader"], &held["for_s"], &held["may_be_longer"]), (&json!(3), &json!(1.0), &json!(true)));
        assert!(held["what"].as_str().unwrap().contains("(view, pid 4703, user me) holds the writer up"), "{held}");
        let [slow, fast] = cam["readers"].as_array().unwrap().as_slice() else { panic!("{cam}") };
        assert_eq!((&slow["messages_per_s"], &slow["oldest_unread_at_least_s"]), (&json!(0.0), &json!(1.0)));
        assert_eq!((&fast["messages_per_s"], &fast["oldest_unread_at_least_s"]), (&json!(50.0), &Value::Null));
        assert_eq!((&fast["reader"], &fast["lag_messages"], &fast["state"]), (&json!(4), &json!(0), &json!("reading")));
        assert_eq!((&imu["held_up"], &imu["readers"]), (&Value::Null, &json!([])));
    }

    #[test]
    fn what_is_not_known_is_null() {
        let document = document(&after([vec![channel("cam", 7)]])).unwrap();
        assert_eq!(document["interval_s"], Value::Null);
        assert_eq!(document["channels"][0]["messages_per_s"], Value::Null);
    }
}
