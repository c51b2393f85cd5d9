//! Owns which settings of a stream lose rows. Pure.
//! Must not know connections.

use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType};

/// The key of the metadata of a stream with the number of its partitions.
pub(crate) const PARTITIONS: &str = "batchsql-partitions";

/// What is to be said about a stream.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What loses rows, with the setting that does not.
    pub(crate) refused: Vec<String>,
    /// What should be known.
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    fn refuse(&mut self, text: String) {
        self.refused.push(text);
    }

    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }
}

/// What is wrong with the settings of a stream.
pub(crate) fn findings(subjects: &str, expected: u32, config: &Config) -> Findings {
    let mut found = Findings::default();
    if config.subjects != [subjects] {
        found.refuse(format!(
            "it has the subjects {:?}; it must have {subjects:?} only, because messages of others count against its limits",
            config.subjects
        ));
    }
    match config.metadata.get(PARTITIONS).map(|text| text.parse::<u32>()) {
        Some(Ok(partitions)) if partitions == expected => {}
        Some(Ok(partitions)) => found.refuse(format!(
            "it has {partitions} partitions, and the program says {}; the number never changes, so correct the program, or \
             use another stream after this one has been written",
            expected
        )),
        _ => found.refuse(format!(
            "its metadata does not say how many partitions it has; set {PARTITIONS} to the number of its publishers"
        )),
    }
    let drops = config.discard == DiscardPolicy::Old;
    for (setting, has_limit) in [("max_bytes", config.max_bytes > 0), ("max_msgs", config.max_messages > 0)] {
        if drops && has_limit {
            found.refuse(format!("discard is old, so {setting} drops rows that were not written; set discard to new"));
        }
    }
    if config.max_messages_per_subject > 0 && (drops || !config.discard_new_per_subject) {
        found.refuse("max_msgs_per_subject drops rows that were not written; remove it".to_owned());
    }
    if !config.max_age.is_zero() {
        found.refuse("max_age drops rows that were not written in time; remove it".to_owned());
    }
    if config.retention != RetentionPolicy::Limits {
        found.refuse("its retention must be limits: workers read from a position, and trim what is written".to_owned());
    }
    if config.storage != StorageType::File {
        found.refuse("its storage is memory, so a restart of the server loses rows; use file".to_owned());
    }
    if config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty()) {
        found.refuse(
            "it is a copy of other streams, whose numbers are not its own; use the stream that publishers write"
                .to_owned(),
        );
    }
    if config.subject_transform.is_some() {
        found.refuse("it changes subjects; remove subject_transform".to_owned());
    }
    if config.no_ack {
        found.refuse("it does not acknowledge messages; remove no_ack".to_owned());
    }
    if config.persist_mode == Some(PersistenceMode::Async) {
        found.refuse("it acknowledges messages before they are stored; set persist_mode to default".to_owned());
    }
    if config.sealed {
        found.refuse("it is sealed, so it takes no messages".to_owned());
    }
    let limits = config.consumer_limits.clone().unwrap_or_default();
    if !limits.inactive_threshold.is_zero() {
        found.refuse(
            "inactive_threshold removes the consumers of workers that do not run, and what they have acknowledged with them; \
             remove it"
                .to_owned(),
        );
    }
    if config.deny_purge {
        found.warn("deny_purge keeps workers from trimming it, so it grows until it is full");
    }
    if config.num_replicas < 3 {
        found.warn(
            "it has fewer than 3 replicas, and whether the server has `sync_interval: always` is not visible to a client: \
             without either, a power loss may lose acknowledged messages of up to 2 minutes",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::{ConsumerLimits, Source, SubjectTransform};

    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::stream::StreamOptions;

    fn options() -> StreamOptions {
        StreamOptions::new("rows").replicas(3)
    }

    fn of(options: &StreamOptions, config: &Config) -> Findings {
        findings(&options.subjects().all(), options.partitions, config)
    }

    #[test]
    fn the_own_settings_are_accepted() {
        for options in [options(), options().max_bytes(1 << 30).prefix("a.b").partitions(3)] {
            let Findings { refused, warnings } = of(&options, &options.config());
            assert!(refused.is_empty() && warnings.is_empty(), "{refused:?} {warnings:?}");
        }
    }

    #[test]
    fn settings_that_lose_rows_are_refused() {
        let check = |change: &dyn Fn(&mut Config), word: &str| {
            let mut config = options().config();
            change(&mut config);
            let Findings { refused, .. } = of(&options(), &config);
            assert_eq!(refused.len(), 1, "{word}: {refused:?}");
            assert!(refused[0].contains(word), "{word}: {refused:?}");
        };
        check(&|config| config.subjects.push("other".into()), "\"other\"");
        check(&|config| config.subjects = vec!["ingest.>".into()], "must have");
        check(&|config| config.metadata = HashMap::new(), PARTITIONS);
        check(&|config| drop(config.metadata.insert(PARTITIONS.into(), "4".into())), "4 partitions");
        check(&|config| (config.max_bytes, config.discard) = (9, DiscardPolicy::Old), "max_bytes");
        check(&|config| (config.max_messages, config.discard) = (9, DiscardPolicy::Old), "max_msgs");
        check(&|config| config.max_messages_per_subject = 9, "max_msgs_per_subject");
        check(&|config| config.max_age = Duration::from_secs(9), "max_age");
        check(&|config| config.retention = RetentionPolicy::WorkQueue, "retention");
        check(&|config| config.retention = RetentionPolicy::Interest, "retention");
        check(&|config| config.storage = StorageType::Memory, "memory");
        check(&|config| config.mirror = Some(Source::default()), "copy");
        check(&|config| config.sources = Some(vec![Source::default()]), "copy");
        check(&|config| config.no_ack = true, "no_ack");
        check(&|config| config.sealed = true, "sealed");
        check(&|config| config.persist_mode = Some(PersistenceMode::Async), "persist_mode");
        let transform = SubjectTransform { source: "a".into(), destination: "b".into() };
        check(&|config| config.subject_transform = Some(transform.clone()), "subject_transform");
        let limits = ConsumerLimits { inactive_threshold: Duration::from_secs(1), max_ack_pending: 0 };
        check(&|config| config.consumer_limits = Some(limits.clone()), "inactive_threshold");
    }

    #[test]
    fn limits_that_refuse_messages_are_accepted() {
        let mut config = options().config();
        (config.max_bytes, config.max_messages, config.max_messages_per_subject) = (9, 9, 9);
        config.discard_new_per_subject = true;
        assert!(of(&options(), &config).refused.is_empty());
    }

    #[test]
    fn what_should_be_known_is_a_warning() {
        let mut config = options().config();
        (config.num_replicas, config.deny_purge) = (1, true);
        let Findings { refused, warnings } = of(&options(), &config);
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("deny_purge") && warnings[1].contains("sync_interval"), "{warnings:?}");
    }
}
