//! Owns the libpq parameters that this client does not support, with advice on what to use instead.
//! Must not know options or connections.

/// Parameters that have no effect at one of these values, because it is the behaviour of this client anyway.
const HARMLESS: [(&str, &[&str]); 12] = [
    ("channel_binding", &["disable", "prefer"]),
    ("client_encoding", &["utf8", "UTF8", "utf-8", "UTF-8", "auto"]),
    ("gssencmode", &["disable", "prefer"]),
    ("sslnegotiation", &["postgres"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
    ("sslcertmode", &["allow"]),
    ("keepalives", &["0"]),
    ("replication", &["false", "off", "no", "0"]),
    ("load_balance_hosts", &["disable"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("min_protocol_version", &["3.0"]),
];

/// Why a libpq parameter is rejected, and what to use instead.
const REFUSED: [(&str, &str); 37] = [
    // It also protects from a server with a certificate of a trusted authority, which no sslmode does. Accepting it
    // without carrying it out would drop that silently.
    (
        "channel_binding",
        "this client has no channel binding; remove it, and use sslmode=verify-full with sslrootcert=system (Neon and others with a public certificate) or the file of your authority",
    ),
    ("client_encoding", "rows are sent as UTF-8; remove it"),
    ("gssencmode", "this client has no GSSAPI; use sslmode=verify-full"),
    ("gsslib", "this client has no GSSAPI; remove it"),
    ("gssdelegation", "this client has no GSSAPI; remove it"),
    ("krbsrvname", "this client has no Kerberos; remove it"),
    ("sslnegotiation", "this client negotiates TLS in the standard way; remove it"),
    ("sslcompression", "TLS is not compressed; remove it"),
    ("sslsni", "the host name is always sent with TLS; remove it"),
    ("sslcertmode", "a certificate is sent when the server asks for one and sslcert is set; remove it"),
    ("sslpassword", "encrypted keys are not read; decrypt the key file, and protect it by its rights"),
    ("sslcrl", "revocation lists are not read; remove it"),
    ("sslcrldir", "revocation lists are not read; remove it"),
    ("sslkeylogfile", "the keys of TLS are not logged; remove it"),
    ("ssl_min_protocol_version", "TLS 1.2 and 1.3 are used; set ssl_min_protocol_version at the server"),
    ("ssl_max_protocol_version", "TLS 1.2 and 1.3 are used; set ssl_max_protocol_version at the server"),
    ("min_protocol_version", "version 3.0 of the protocol is used; remove it"),
    ("max_protocol_version", "version 3.0 of the protocol is used; remove it"),
    ("requirepeer", "the server's OS user is not checked; use TLS with sslmode=verify-full"),
    ("require_auth", "the server chooses the authentication method; remove it, and set it in pg_hba.conf"),
    ("scram_client_key", "use a password"),
    ("scram_server_key", "use a password"),
    ("passfile", "set the environment variable PGPASSFILE"),
    ("fallback_application_name", "use application_name"),
    ("keepalives", "set it at the server (tcp_keepalives_idle), or for the system"),
    ("keepalives_idle", "set it at the server (tcp_keepalives_idle), or for the system"),
    ("keepalives_interval", "set it at the server (tcp_keepalives_interval), or for the system"),
    ("keepalives_count", "set it at the server (tcp_keepalives_count), or for the system"),
    ("tcp_user_timeout", "set it at the server, or tcp_retries2 of the system"),
    ("replication", "this is not a replication connection; remove it"),
    ("load_balance_hosts", "hosts are tried in their order; remove it"),
    ("service", "service files are not read; write host, port and database into the dsn"),
    ("servicefile", "service files are not read; write host, port and database into the dsn"),
    ("oauth_issuer", "this client has no OAuth; use PostgresOptions::password_provider"),
    ("oauth_client_id", "this client has no OAuth; use PostgresOptions::password_provider"),
    ("oauth_client_secret", "this client has no OAuth; use PostgresOptions::password_provider"),
    ("oauth_scope", "this client has no OAuth; use PostgresOptions::password_provider"),
];

/// How a libpq parameter is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It has no effect.
    Harmless,
    /// It is not supported; contains the advice.
    Refused(&'static str),
}

/// How a libpq parameter is handled; `None` if it is not one, or is supported.
pub(crate) fn known(name: &str, value: &str) -> Option<Known> {
    if HARMLESS.iter().any(|(known, values)| *known == name && values.contains(&value)) {
        return Some(Known::Harmless);
    }
    REFUSED.iter().find(|(known, _)| *known == name).map(|(_, advice)| Known::Refused(advice))
}
