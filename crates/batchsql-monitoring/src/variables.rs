//! Owns the variables of a dashboard inside its queries: their syntax and their replacement.
//! Must not know dashboards or PromQL.

/// Replaces every `$name`, `${name}` and `${name:format}` by its value. `$1` is not a variable but an argument of
/// `label_replace`.
///
/// # Errors
/// The first name that has no value.
pub(crate) fn substitute(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        done += before;
        let (name, next) = match after.strip_prefix('{') {
            Some(braced) => match braced.split_once('}') {
                Some((inside, next)) => (inside.split(':').next().unwrap_or(inside), next),
                None => return Err(format!("${{{braced}")),
            },
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            done.push('$');
            rest = after;
            continue;
        }
        done += &value(name).ok_or_else(|| name.to_owned())?;
        rest = next;
    }
    Ok(done + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_variable_is_known() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let value = |name: &str| (name == "job").then(|| "J".to_owned());
            assert_eq!(substitute(text, value), expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        };
        check("a{job=~\"$job\"}", Ok("a{job=~\"J\"}"));
        check("${job}+${job:regex}", Ok("J+J"));
        check("\"$1\" and $$job", Ok("\"$1\" and $J"));
        check("$jobs", Err("jobs"));
        check("${job", Err("${job"));
        check("no variable", Ok("no variable"));
    }
}
