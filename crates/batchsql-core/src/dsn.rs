//! Owns what the DSNs of all drivers have in common: how parameters are split, decoded, read and refused.
//! Must not know which parameters a driver has, or how an address is written.
//!
//! Only for the drivers of this workspace: it is not a part of the public API.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::open_error::OpenError;

/// The longest time that a DSN may state: 136 years.
const MAX_SECONDS: f64 = u32::MAX as f64;

/// The units of a duration. Without a unit, a number is in seconds, as in the DSNs of libpq.
const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("min", 60.0), ("h", 3600.0)];

/// The error of a DSN whose scheme is not one of the driver. `scheme` is the text before the separator, if there is one.
/// `form` says how a DSN is written.
pub fn wrong_scheme(product: &str, scheme: Option<&str>, form: &str) -> OpenError {
    // Only a valid scheme is shown: other text may be the start of a password.
    let shown = scheme.filter(|scheme| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+'));
    OpenError::invalid_options(match shown {
        Some(scheme) => format!("a dsn with scheme {scheme:?} is not for {product}; {form}"),
        None => format!("the {product} dsn has no scheme; {form}"),
    })
}

/// The text of a part of a DSN; `what` names the part.
///
/// # Errors
/// The decoded text is not UTF-8.
pub fn decoded<'a>(product: &str, text: &'a str, what: &str) -> Result<Cow<'a, str>, OpenError> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| OpenError::invalid_options(format!("{what} in the {product} dsn is not UTF-8")))
}

/// The parameters of the query of a DSN, in their order. `shows_names` is false if a part of a password may look like the
/// name of a parameter; then no error shows a name that the driver does not know.
pub fn parameters<'a>(product: &'static str, query: &'a str, shows_names: bool) -> impl Iterator<Item = Parameter<'a>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Other text may be a part of a password whose special characters are not encoded.
        let is_name = pair.contains('=') && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(&byte));
        Parameter { product, name, value, is_shown: shows_names && is_name }
    })
}

/// Rejects a parameter that is given twice, because only one of the two values would apply. `group` returns the spellings
/// of a parameter for its name; `None` if it may be repeated.
///
/// # Errors
/// Names the parameter.
pub fn check_once<'a>(
    parameters: &[Parameter<'_>],
    group: impl Fn(&str) -> Option<&'a [&'a str]>,
) -> Result<(), OpenError> {
    let mut seen: Vec<&[&str]> = Vec::new();
    for parameter in parameters {
        let Some(names) = group(parameter.name) else { continue };
        if seen.contains(&names) {
            return Err(OpenError::invalid_options(format!(
                "{} is given twice in the {} dsn; give it once",
                names.join(" or "),
                parameter.product
            )));
        }
        seen.push(names);
    }
    Ok(())
}

/// One parameter of a DSN, with the ways to read its value. An error names the parameter and never shows its value.
#[derive(Clone, Copy)]
pub struct Parameter<'a> {
    product: &'static str,
    name: &'a str,
    value: &'a str,
    is_shown: bool,
}

impl<'a> Parameter<'a> {
    /// The name as given.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The value as given, percent-encoded.
    pub fn encoded(&self) -> &'a str {
        self.value
    }

    /// The decoded value.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<Cow<'a, str>, OpenError> {
        decoded(self.product, self.value, self.name)
    }

    /// A time above 0, for example `5s`, `500ms`, `2min`, `1.5h`; a number without a unit is in seconds.
    ///
    /// # Errors
    /// It is not such a time.
    pub fn duration(&self) -> Result<Duration, OpenError> {
        let duration = duration(&self.text()?).filter(|duration| !duration.is_zero());
        duration.ok_or_else(|| self.wrong("a duration above 0 such as 5s, 500ms or 2min"))
    }

    /// A time as in [`duration`](Self::duration), or 0.
    ///
    /// # Errors
    /// It is not such a time.
    pub fn duration_or_zero(&self) -> Result<Duration, OpenError> {
        duration(&self.text()?).ok_or_else(|| self.wrong("a duration such as 5s, 500ms or 2min"))
    }

    /// A whole number from 0 on.
    ///
    /// # Errors
    /// It is not such a number.
    pub fn number<N: FromStr>(&self) -> Result<N, OpenError> {
        self.text()?.parse().map_err(|_| self.wrong("a number from 0 on"))
    }

    /// A whole number from 1 on.
    ///
    /// # Errors
    /// It is not such a number.
    pub fn count<N: FromStr + PartialOrd + From<u8>>(&self) -> Result<N, OpenError> {
        let count = self.text()?.parse().ok().filter(|count| *count >= N::from(1));
        count.ok_or_else(|| self.wrong("a number from 1 on"))
    }

    /// One of several words.
    ///
    /// # Errors
    /// It is none of them; the error lists them.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, OpenError> {
        let text = self.text()?;
        let choice = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        choice.ok_or_else(|| self.wrong(&alternatives(choices.iter().map(|(word, _)| *word))))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&self) -> Result<bool, OpenError> {
        self.choice(&[("true", true), ("false", false)])
    }

    /// The error of a value that is not what it must be.
    pub fn wrong(&self, expected: &str) -> OpenError {
        OpenError::invalid_options(format!("{} in the {} dsn is not {expected}", self.name, self.product))
    }

    /// The error of a parameter that the driver knows and does not support.
    pub fn refused(&self, advice: &str) -> OpenError {
        let shown = self.shown();
        OpenError::invalid_options(format!("parameter{shown} in the {} dsn cannot be used: {advice}", self.product))
    }

    /// The error of a parameter that the driver does not know, with the names that it knows.
    pub fn unknown(&self, known: &[&str]) -> OpenError {
        let (product, shown) = (self.product, self.shown());
        // Without a name there is no suggestion either: it would be derived from a password.
        let advice = match self.nearest(known) {
            _ if !self.is_shown => "percent-encode special characters; ".to_owned(),
            Some(name) => format!("did you mean {name}? "),
            None => String::new(),
        };
        let known = known.join(", ");
        OpenError::invalid_options(format!("unknown parameter{shown} in the {product} dsn; {advice}known are {known}"))
    }

    fn shown(&self) -> String {
        if self.is_shown { format!(" {:?}", self.name) } else { String::new() }
    }

    /// The known name that was probably meant.
    fn nearest<'k>(&self, known: &[&'k str]) -> Option<&'k str> {
        // A unit in the name is a habit of other clients.
        let name = self.name.trim_end_matches("_ms").trim_end_matches("_secs");
        let distances = known.iter().map(|known| (strsim::damerau_levenshtein(known, name), *known));
        distances.min().filter(|(distance, _)| *distance <= name.len().div_ceil(4)).map(|(_, known)| known)
    }
}

/// `a, b or c`.
fn alternatives<'a>(words: impl ExactSizeIterator<Item = &'a str>) -> String {
    let last = words.len().saturating_sub(1);
    let mut text = String::new();
    for (place, word) in words.enumerate() {
        text.push_str(match place {
            0 => "",
            _ if place == last => " or ",
            _ => ", ",
        });
        text.push_str(word);
    }
    text
}

/// A decimal number of at most 136 years with a unit, or in seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1.0,
        _ => UNITS.iter().find(|(known, _)| *known == unit)?.1,
    };
    let seconds = number.parse::<f64>().ok()? * factor;
    if seconds <= MAX_SECONDS { Duration::try_from_secs_f64(seconds).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["max_connections", "connect_timeout", "sslmode"];

    fn one(query: &str) -> Parameter<'_> {
        parameters("test", query, true).next().unwrap()
    }

    #[test]
    fn durations_have_units() {
        let check = |value: &str, expected: Option<Duration>| assert_eq!(duration(value), expected, "{value}");
        check("5s", Some(Duration::from_secs(5)));
        check("500ms", Some(Duration::from_millis(500)));
        check("0.5s", Some(Duration::from_millis(500)));
        check("2min", Some(Duration::from_secs(120)));
        check("1.5h", Some(Duration::from_secs(5400)));
        check("7", Some(Duration::from_secs(7)));
        check("0.25", Some(Duration::from_millis(250)));
        check("0", Some(Duration::ZERO));
        for wrong in ["", "s", "-1", "+1", "1e3", "inf", "nan", "5 s", "5m", "5S", "1.2.3", "4294967296", "1193047h"] {
            check(wrong, None);
        }
    }

    #[test]
    fn values_are_decoded_and_read() {
        assert_eq!(one("a=%2Fx%20y&b=1").text().unwrap(), "/x y");
        assert_eq!(one("a=%35s").duration().unwrap(), Duration::from_secs(5));
        assert_eq!(one("a=3").count::<u32>().unwrap(), 3);
        assert_eq!(one("a=0").number::<u64>().unwrap(), 0);
        assert_eq!(one("a=0ms").duration_or_zero().unwrap(), Duration::ZERO);
        assert!(one("a=true").flag().unwrap() && !one("a=false").flag().unwrap());
        assert_eq!(one("a=two").choice(&[("one", 1), ("two", 2)]).unwrap(), 2);
    }

    #[test]
    fn mistakes_say_what_is_valid_and_show_no_value() {
        let check = |error: OpenError, expected: &str| {
            assert!(error.is_invalid_options());
            assert_eq!(error.to_string(), expected);
        };
        let wrong =
            |query, what: &dyn Fn(Parameter<'_>) -> OpenError, expected: &str| check(what(one(query)), expected);
        let not_above_0 = "wait in the test dsn is not a duration above 0 such as 5s, 500ms or 2min";
        wrong("wait=0", &|wait| wait.duration().unwrap_err(), not_above_0);
        wrong("wait=secret", &|wait| wait.duration().unwrap_err(), not_above_0);
        wrong("n=0", &|n| n.count::<u32>().unwrap_err(), "n in the test dsn is not a number from 1 on");
        wrong("n=-1", &|n| n.number::<u32>().unwrap_err(), "n in the test dsn is not a number from 0 on");
        wrong("n=%FF", &|n| n.number::<u32>().unwrap_err(), "n in the test dsn is not UTF-8");
        let words = [("a", ()), ("b", ()), ("c", ())];
        wrong("w=secret", &|w| w.choice(&words).unwrap_err(), "w in the test dsn is not a, b or c");
        wrong("w=secret", &|w| w.flag().unwrap_err(), "w in the test dsn is not true or false");
        wrong("w=secret", &|w| w.refused("remove it"), "parameter \"w\" in the test dsn cannot be used: remove it");
        check(wrong_scheme("test", Some("my+sql"), "use x"), "a dsn with scheme \"my+sql\" is not for test; use x");
        check(wrong_scheme("test", Some("user:secret"), "use x"), "the test dsn has no scheme; use x");
        check(wrong_scheme("test", None, "use x"), "the test dsn has no scheme; use x");
    }

    #[test]
    fn an_unknown_parameter_gets_the_known_ones_and_the_nearest() {
        let known = "known are max_connections, connect_timeout, sslmode";
        let check = |query: &str, shows_names: bool, expected: &str| {
            let parameter = parameters("test", query, shows_names).next().unwrap();
            assert_eq!(parameter.unknown(&KNOWN).to_string(), format!("unknown parameter{expected}{known}"), "{query}");
        };
        check("max_conections=1", true, " \"max_conections\" in the test dsn; did you mean max_connections? ");
        check("connect_timeout_ms=1", true, " \"connect_timeout_ms\" in the test dsn; did you mean connect_timeout? ");
        check("ssl-mode=1", true, " \"ssl-mode\" in the test dsn; did you mean sslmode? ");
        check("nonsense=1", true, " \"nonsense\" in the test dsn; ");
        // Each of these may be a part of a password.
        for hidden in ["max_conections", "Max_conections=1", "max%conections=1", "s3cret=1"] {
            check(hidden, true, " in the test dsn; percent-encode special characters; ");
        }
        check("max_conections=1", false, " in the test dsn; percent-encode special characters; ");
    }

    #[test]
    fn a_parameter_in_two_spellings_is_given_twice() {
        let check = |query: &str, expected: Option<&str>| {
            let groups: [&[&str]; 2] = [&["ca", "ssl-ca"], &["user"]];
            let group = |name: &str| groups.iter().find(|names| names.contains(&name)).copied();
            let parameters: Vec<_> = parameters("test", query, true).collect();
            let found = check_once(&parameters, group).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected, "{query}");
        };
        check("ca=1&user=2&repeated=1&repeated=2", None);
        check("ca=1&ssl-ca=1", Some("ca or ssl-ca is given twice in the test dsn; give it once"));
        check("user=1&&user=2", Some("user is given twice in the test dsn; give it once"));
    }
}
