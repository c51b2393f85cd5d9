//! Owns what a durable intake refuses, and what to do instead.
//! Must not know when it is asked.

use batchsql_core::{Action, Delivery, Schema, WhenFull};

use crate::error::DurableStartError;

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

/// Why rows of a schema are not accepted, if they are not.
pub(crate) fn refuse_schema(schema: &Schema) -> Option<String> {
    let counts_repeats = schema.action() != Action::Insert && !schema.is_repeatable();
    counts_repeats.then(|| {
        format!(
            "table {:?} has a rule with Expr::add or Expr::raw, and a durable intake may write a row more than once; accept \
             that with Conflict::may_add_twice, or use another rule",
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
        assert!(refuse_schema(&schema(add())).unwrap().contains("may_add_twice"));
        assert_eq!(refuse_schema(&schema(add().may_add_twice())), None);
        assert_eq!(refuse_schema(&schema(Conflict::none())), None, "a plain insert may be doubled");
        assert_eq!(refuse_schema(&schema(Conflict::update(["id"]))), None);
    }
}
