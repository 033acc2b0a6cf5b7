//! What an error of the library means for the link, in words that say what to do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::ingest::source::SourceError;

/// What follows from an error that the library tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It says more about a failure that may come; the library goes on by itself.
    Hint,
    /// No broker of the cluster can be reached at present.
    AllDown,
    /// A partition does not have the place of its reader.
    PlaceRefused { is_end_lost: bool },
    /// The link is of no more use.
    Ends(SourceError),
}

impl Verdict {
    /// `is_group`: whether the link has a group. Without one, the library asks for the coordinator of a group all the same.
    pub fn of(code: Code, reason: &str, is_group: bool) -> Self {
        match code {
            Code::AllBrokersDown => Self::AllDown,
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                Self::PlaceRefused { is_end_lost: reason.contains("truncation") || code == Code::LogTruncation }
            }
            Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition => Self::Hint,
            Code::SSL if !reason.contains("certificate") => Self::Hint,
            Code::GroupAuthorizationFailed if !is_group => Self::Hint,
            _ => Self::Ends(error_of(code, reason)),
        }
    }
}

/// The failure of a call.
pub fn failure(what: &str, error: &KafkaError) -> SourceError {
    match error.rdkafka_error_code() {
        Some(code) => error_of(code, &format!("{what}: {}", words(code))),
        None => SourceError::retry(format!("{what}: {error}")),
    }
}

/// What is wrong with a topic.
pub fn topic_problem(topic: &str, code: Code) -> SourceError {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic => SourceError::retry(format!(
            "topic {topic} does not exist: create it with kafka-topics.sh --create --topic {topic}"
        )),
        _ => error_of(code, &format!("topic {topic}: {}", words(code))),
    }
}

fn error_of(code: Code, reason: &str) -> SourceError {
    let fatal =
        |said: &str, cure: &str| SourceError::Fatal { reason: format!("{said}: {reason}"), cure: cure.to_owned() };
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => fatal(
            "the broker refuses the credentials",
            "correct user=, password_file= and mechanism=, and restart the server",
        ),
        Code::SSL => fatal(
            "TLS",
            "name the authority of its certificate with ca_file=FILE, and the server as the certificate does",
        ),
        Code::TopicAuthorizationFailed => fatal(
            "no permission",
            "give the user Read and Describe on the topic, with kafka-acls.sh --add --operation Read --topic NAME",
        ),
        Code::GroupAuthorizationFailed => fatal(
            "no permission",
            "give the user Read on the group, with kafka-acls.sh --add --operation Read --group NAME",
        ),
        Code::ClusterAuthorizationFailed => fatal("no permission", "give the user Describe on the cluster"),
        _ => SourceError::retry(reason),
    }
}

/// The library's words for a code.
fn words(code: Code) -> String {
    let text = code.to_string();
    // As `NAME (words)`.
    let words = text.split_once(" (").and_then(|(_, words)| words.strip_suffix(')'));
    words.unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_need_a_change_are_fatal_with_a_cure_and_others_are_retried() {
        for (code, reason, cure) in [
            (Code::Authentication, "x", "correct user=, password_file= and mechanism="),
            (Code::SaslAuthenticationFailed, "x", "correct user="),
            (Code::SSL, "certificate verify failed", "ca_file=FILE"),
            (Code::TopicAuthorizationFailed, "x", "kafka-acls.sh --add --operation Read --topic"),
            (Code::GroupAuthorizationFailed, "FindCoordinator failed", "kafka-acls.sh --add --operation Read --group"),
        ] {
            let verdict = Verdict::of(code, reason, true);
            let is_so = matches!(&verdict, Verdict::Ends(SourceError::Fatal { cure: said, .. }) if said.contains(cure));
            assert!(is_so, "{verdict:?}");
        }
        for code in [Code::MessageSizeTooLarge, Code::Fatal, Code::UnknownTopicOrPartition, Code::PollExceeded] {
            assert!(matches!(Verdict::of(code, "x", true), Verdict::Ends(SourceError::Retry { .. })), "{code:?}");
        }
        assert_eq!(Verdict::of(Code::SSL, "Disconnected", true), Verdict::Hint);
        assert_eq!(Verdict::of(Code::GroupAuthorizationFailed, "x", false), Verdict::Hint);
        assert_eq!(
            Verdict::of(Code::AutoOffsetReset, "Offset out of range", true),
            Verdict::PlaceRefused { is_end_lost: false }
        );
        let truncated = "Partition log truncation detected at 5: broker end offset is 3";
        assert_eq!(Verdict::of(Code::AutoOffsetReset, truncated, true), Verdict::PlaceRefused { is_end_lost: true });
    }

    #[test]
    fn missing_topic_is_retried_and_says_how_to_create_it() {
        let error = topic_problem("prices", Code::UnknownTopicOrPartition);
        let expected = "topic prices does not exist: create it with kafka-topics.sh --create --topic prices";
        assert_eq!(error, SourceError::retry(expected));
        let error = topic_problem("prices", Code::TopicAuthorizationFailed).to_string();
        assert!(error.starts_with("no permission: topic prices: Broker: Topic authorization failed: give"), "{error}");
    }
}
