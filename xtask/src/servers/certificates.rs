//! A certificate for `localhost` and `127.0.0.1`, and the authority that signed it, whose key is removed.
//! Must not know how it is used.

use std::{fs, path::PathBuf};

use anyhow::Context;

use super::{find, keeper::Keeper};

/// Files of a server with TLS.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// The content of the files: authority, certificate, key.
    pub(crate) fn texts(&self) -> anyhow::Result<[String; 3]> {
        let text = |path| fs::read_to_string(path).context("cannot read a certificate");
        Ok([text(&self.authority)?, text(&self.certificate)?, text(&self.key)?])
    }
}

/// The configuration of openssl, instead of the system's.
const CONFIGURATION: &str = "
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

/// The program that creates certificates.
pub(crate) const PROGRAM: &str = "openssl";

/// Creates a certificate in the folder of a server. `None` without openssl; then the server has no TLS.
pub(crate) fn make(keeper: &mut Keeper) -> anyhow::Result<Option<Certificate>> {
    let Some(openssl) = find::program(&[PROGRAM]) else { return Ok(None) };
    keeper.write("tls.cnf", CONFIGURATION)?;
    for (key, request) in [("ca.key", None), ("server.key", Some("server.csr"))] {
        keeper.run(&openssl, &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key], "")?;
        let subject = if request.is_some() { "/CN=localhost" } else { "/CN=BatchSQL tests" };
        let mut arguments = vec!["req", "-new", "-config", "tls.cnf", "-sha256", "-subj", subject, "-key", key];
        match request {
            None => arguments.extend(["-x509", "-days", "7", "-extensions", "authority", "-out", "ca.pem"]),
            Some(request) => arguments.extend(["-out", request]),
        }
        keeper.run(&openssl, &arguments, "")?;
    }
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 7 -sha256 -extfile tls.cnf \
                -extensions server -out server.pem";
    keeper.run(&openssl, &sign.split(' ').collect::<Vec<_>>(), "")?;
    let folder = keeper.folder();
    fs::remove_file(folder.join("ca.key"))?;
    Ok(Some(Certificate {
        authority: folder.join("ca.pem"),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
    }))
}
