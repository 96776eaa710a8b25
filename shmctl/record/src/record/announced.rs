//! What the daemon says about a channel's messages.

use std::time::{Duration, Instant};

use shm_proto::{ChannelName, Client, Content, Endpoint, RequestError, Schema};
use shmctl::companion::note;

/// How long the daemon may take to send the text of a schema. The channel is not read meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request waits that the daemon has refused because there were too many.
const PAUSE: Duration = Duration::from_millis(100);

/// What a channel declares, with the text of its schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) content: Option<Content>,
    /// Empty if there is none, or if the daemon did not send it.
    pub(crate) text: Vec<u8>,
}

impl Announced {
    /// Asks for the text of the schema, unless `before` has it.
    pub(crate) fn of(endpoint: &Endpoint, channel: &ChannelName, content: Option<Content>, before: &Announced) -> Self {
        let schema = content.as_ref().and_then(|content| content.schema.as_ref()).filter(|schema| schema.bytes > 0);
        let Some(schema) = schema else { return Announced { content, text: Vec::new() } };
        if before.is_text_of(schema) {
            return Announced { text: before.text.clone(), content };
        }
        let text = text(endpoint, channel, schema).unwrap_or_else(|why| {
            note(&format!("channel {channel}: the files have only the name of the schema {}: {why}", schema.name));
            Vec::new()
        });
        Announced { content, text }
    }

    fn is_text_of(&self, schema: &Schema) -> bool {
        let own = self.content.as_ref().and_then(|content| content.schema.as_ref());
        !self.text.is_empty() && own.is_some_and(|own| (own.bytes, &own.hash) == (schema.bytes, &schema.hash))
    }
}

fn text(endpoint: &Endpoint, channel: &ChannelName, schema: &Schema) -> Result<Vec<u8>, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
        let asked = Client::connect(endpoint, left).and_then(|mut client| client.schema(Some(channel.clone())));
        match asked {
            Ok(Some(text)) if Schema::new(String::new(), String::new(), &text).hash == schema.hash => return Ok(text),
            // A reload has changed it since the recorder attached.
            Ok(_) => return Err("the daemon has another text for it by now".to_owned()),
            Err(RequestError::Refused(refusal)) if refusal.kind.is_temporary() && Instant::now() + PAUSE < end => {
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
