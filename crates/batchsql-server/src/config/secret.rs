//! Owns texts that must not be shown, and their files.
//! Must not know what they are for.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads a file without the newline at its end.
    ///
    /// # Errors
    /// The file cannot be read, or is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("the file {} cannot be read: {error}", path.display()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(format!("the file {} is empty; write the secret into it", path.display()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// Puts a password into a DSN that has none.
///
/// # Errors
/// The DSN has a password already, or has no host.
pub(crate) fn with_password(dsn: &str, password: &Secret) -> Result<Secret, String> {
    let Some((scheme, rest)) = dsn.split_once("://") else {
        return Err("a password needs a dsn with a host, such as postgres://user@host/database".to_owned());
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, host) = rest[..end].rsplit_once('@').unwrap_or(("", &rest[..end]));
    if user.contains(':') {
        return Err("the dsn has a password of its own; remove one of the two".to_owned());
    }
    let mut encoded = String::new();
    for byte in password.reveal().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(Secret::new(format!("{scheme}://{user}:{encoded}@{host}{}", &rest[end..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_put_into_a_dsn() {
        let put = |dsn: &str| with_password(dsn, &Secret::new("p@ss:wörd/")).map(|dsn| dsn.reveal().to_owned());
        let expected = "postgres://app:p%40ss%3Aw%C3%B6rd%2F@db:5432/shop?a=b";
        assert_eq!(put("postgres://app@db:5432/shop?a=b").unwrap(), expected);
        assert_eq!(put("redis://db:6379").unwrap(), "redis://:p%40ss%3Aw%C3%B6rd%2F@db:6379");
        assert_eq!(put("mysql://app@h1,h2/x").unwrap(), "mysql://app:p%40ss%3Aw%C3%B6rd%2F@h1,h2/x");
        assert!(put("postgres://app:old@db/shop").unwrap_err().contains("remove one of the two"));
        assert!(put("sqlite:a.db").unwrap_err().contains("needs a dsn with a host"));
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "hidden");
    }

    #[test]
    fn a_file_ends_with_one_newline_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = folder.path().join("secret");
            std::fs::write(&path, text).unwrap();
            Secret::read(&path).map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(read("a b\n").unwrap(), "a b");
        assert_eq!(read("a\r\n").unwrap(), "a");
        assert_eq!(read("a\n\n").unwrap(), "a\n");
        assert!(read("\n").unwrap_err().contains("is empty"));
        assert!(Secret::read(Path::new("/no/such/file")).unwrap_err().contains("cannot be read"));
    }
}
