//! Owns what a durable intake refuses, and what to do instead.
//! Must not know when it is asked.

use batchsql_core::{BatchSqlBuilder, Delivery, Isolation, PipelineConfig, Schema, Sink, WhenFull};

use batchsql_log::SyncPolicy;

use crate::error::DurableStartError;
use crate::options::DurableOptions;

/// Settings that contradict a durable intake.
pub(crate) fn refuse_settings(when_full: &WhenFull, delivery: Delivery) -> Result<(), DurableStartError> {
    if *when_full == WhenFull::DropOldest {
        let text = "when_full is DropOldest, but a durable intake drops no row; use WhenFull::Wait or Reject";
        return Err(DurableStartError::refused(text));
    }
    if delivery == Delivery::NeverRepeat {
        let text = "delivery is NeverRepeat, but a durable intake writes rows again after a crash or a lost reply; use \
                    AtMostOnce (the default), which applies to the repeats of the pipeline itself";
        return Err(DurableStartError::refused(text));
    }
    Ok(())
}

/// The longest name of a source, in characters.
const LONGEST_SOURCE: usize = 100;

/// Settings that contradict writing exactly once.
pub(crate) fn refuse_exactly_once<S: Sink>(
    builder: &BatchSqlBuilder<S>,
    config: &PipelineConfig,
    options: &DurableOptions,
) -> Result<(), DurableStartError> {
    let refused = |text: String| Err(DurableStartError::refused(text));
    let sink = builder.sink();
    if !sink.keeps_positions() {
        return refused(format!(
            "{} keeps no positions, so rows cannot be written exactly once; leave out exactly_once, and use a rule with a key",
            sink.name()
        ));
    }
    if config.isolation == Isolation::AtomicBatch {
        let text =
            "isolation is AtomicBatch, but rows that are written exactly once have no batches; use Isolation::Bisect";
        return refused(text.to_owned());
    }
    if options.policy != SyncPolicy::Always {
        let text = "the sync policy is not Always: after a power loss the log would be older than the positions; use \
                    SyncPolicy::Always";
        return refused(text.to_owned());
    }
    let source = options.exactly_once.as_deref().unwrap_or_default();
    if source.is_empty() || source.chars().count() > LONGEST_SOURCE || source.contains('\0') || source.trim() != source
    {
        return refused(format!(
            "the name of the source has 1 to {LONGEST_SOURCE} characters, no space at its ends, and no NUL"
        ));
    }
    Ok(())
}

/// Why rows of a schema are not accepted, if they are not.
pub(crate) fn refuse_schema(schema: &Schema, exactly_once: bool) -> Option<String> {
    let counts_repeats = !exactly_once && schema.counts_repeats();
    counts_repeats.then(|| {
        format!(
            "table {:?} has a rule with Expr::add or Expr::raw, and a durable intake may write a row more than once; use \
             DurableOptions::exactly_once, accept it with Conflict::may_add_twice, or use another rule",
            schema.table_display()
        )
    })
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, Conflict, Expr};

    use super::*;

    #[test]
    fn rules_that_count_repeats_need_a_decision() {
        let schema = |rule: Conflict| {
            let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
            schema.on_conflict(rule).build().unwrap()
        };
        let add = || Conflict::update(["id"]).set("n", Expr::add());
        assert!(refuse_schema(&schema(add()), false).unwrap().contains("may_add_twice"));
        assert_eq!(refuse_schema(&schema(add()), true), None);
        assert_eq!(refuse_schema(&schema(add().may_add_twice()), false), None);
        assert_eq!(refuse_schema(&schema(Conflict::none()), false), None, "a plain insert may be doubled");
        assert_eq!(refuse_schema(&schema(Conflict::update(["id"])), false), None);
        let partial = |rule: Conflict| schema(rule.on_partial_index("n > 0"));
        assert_eq!(
            refuse_schema(&partial(Conflict::update(["id"])), false),
            None,
            "it may be doubled as a plain insert"
        );
        assert!(refuse_schema(&partial(add()), false).is_some());
    }
}
