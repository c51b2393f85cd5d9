//! Owns the checks of addresses and secrets: who can reach a port, and with what.
//! Must not know sections.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::config::secret::Secret;

/// A secret that is given as a text or by its file, `name` being the key of the text.
///
/// # Errors
/// Both are given, or the file cannot be read.
pub(crate) fn one_secret(
    name: &str,
    text: Option<Secret>,
    file: Option<Spanned<PathBuf>>,
    folder: &Path,
) -> Result<Option<Secret>, String> {
    match (text, file) {
        (Some(_), Some(_)) => Err(format!("`{name}` and `{name}_file` are both given; keep one of them")),
        (Some(text), None) if text.reveal().is_empty() => {
            Err(format!("`{name}` is empty; give it a value or remove it"))
        }
        (Some(text), None) => Ok(Some(text)),
        (None, Some(file)) => Secret::read(&folder.join(file.get_ref())).map(Some),
        (None, None) => Ok(None),
    }
}

/// Where the name of a file is, if there is one; else the section.
pub(crate) fn place(file: Option<&Spanned<PathBuf>>, section: &Range<usize>) -> Range<usize> {
    file.map_or_else(|| section.clone(), Spanned::span)
}

/// A bearer token is sent in a header.
///
/// # Errors
/// It has other characters than a header may have.
pub(crate) fn check_token(token: &Secret) -> Result<(), String> {
    let is_printable = token.reveal().bytes().all(|byte| byte.is_ascii_graphic());
    if is_printable { Ok(()) } else { Err("a token is printable ASCII without spaces; make another one".to_owned()) }
}

/// # Errors
/// It is not an address with a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address with a port; write for example \"127.0.0.1:8080\""))
}

/// # Errors
/// Others than this machine can reach the address without a token.
pub(crate) fn check_open(address: SocketAddr, has_token: bool, anonymous: bool, what: &str) -> Result<(), String> {
    if address.ip().is_loopback() || has_token || anonymous {
        return Ok(());
    }
    Err(format!(
        "everyone who can reach {address} can {what}; require a token, listen on 127.0.0.1, or set `anonymous = true`"
    ))
}
