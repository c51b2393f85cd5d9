//! Owns the check whether a crash of the server loses rows that it has confirmed.
//! Must not know rows.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/>.

use redis::{RedisResult, Value};

use crate::classify::never_runs;
use crate::link::Link;

/// The setting that may lose what the server has confirmed, if so.
///
/// # Errors
/// The connection is lost, or the server refuses the command for a while.
pub(crate) async fn lossy_setting(link: &mut Link) -> RedisResult<Option<String>> {
    let mut values = Vec::new();
    for name in ["appendonly", "appendfsync"] {
        match link.ask(redis::cmd("CONFIG").arg("GET").arg(name)).await {
            Ok(reply) => values.push(value_of(&reply)),
            Err(error) if never_runs(&error) => return Ok(lossy(None, None)),
            Err(error) => return Err(error),
        }
    }
    let [appendonly, appendfsync] = &values[..] else { return Ok(None) };
    Ok(lossy(appendonly.as_deref(), appendfsync.as_deref()))
}

/// The value in the reply of `CONFIG GET` for one name: a map, or a list of names and values.
fn value_of(reply: &Value) -> Option<String> {
    let value = match reply {
        Value::Map(entries) => &entries.first()?.1,
        Value::Array(items) => items.get(1)?,
        _ => return None,
    };
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn lossy(appendonly: Option<&str>, appendfsync: Option<&str>) -> Option<String> {
    match (appendonly, appendfsync) {
        (Some("yes"), Some("always")) => None,
        (Some("yes"), Some(policy)) => Some(format!(
            "appendfsync is {policy}, so a crash of the server may lose rows that it has confirmed; set it to always"
        )),
        (Some("no"), _) => Some(
            "appendonly is no, so a crash of the server loses the rows since its last snapshot; set appendonly to yes and \
             appendfsync to always"
                .to_owned(),
        ),
        _ => Some(
            "appendonly and appendfsync cannot be read, so it is not known whether a crash of the server loses rows; see that \
             they are yes and always"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_pair_of_settings_keeps_what_was_confirmed() {
        assert_eq!(lossy(Some("yes"), Some("always")), None);
        let check = |appendonly, appendfsync, names: &str| {
            assert!(lossy(appendonly, appendfsync).unwrap().starts_with(names), "{appendonly:?} {appendfsync:?}");
        };
        check(Some("yes"), Some("everysec"), "appendfsync is everysec");
        check(Some("no"), Some("always"), "appendonly is no");
        check(None, None, "appendonly and appendfsync cannot be read");
    }

    #[test]
    fn both_protocols_have_the_value_behind_the_name() {
        let text = |text: &str| Value::BulkString(text.into());
        let list = Value::Array(vec![text("appendonly"), text("yes")]);
        let map = Value::Map(vec![(text("appendonly"), text("yes"))]);
        assert_eq!([value_of(&list), value_of(&map)], [Some("yes".to_owned()), Some("yes".to_owned())]);
        assert_eq!(value_of(&Value::Array(vec![])), None);
    }
}
