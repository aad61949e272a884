//! The message that wakes a worker.

use lapin::BasicProperties;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The body of a message: an export has work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobMessage {
    pub export_id: Uuid,
}

impl JobMessage {
    /// Body and properties of a new message.
    pub(super) fn encode(self) -> (Vec<u8>, BasicProperties) {
        let body = serde_json::to_vec(&self).expect("a struct of one uuid serializes");
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id(Uuid::new_v4().to_string().into())
            .with_type("export".into());
        (body, properties)
    }
}
