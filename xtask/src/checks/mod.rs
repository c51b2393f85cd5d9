//! Owns the verbs that check what users of the published packages meet: features, versions, platforms, documentation.
//! Each file is one verb. Must not know the rules of other tools: they are in deny.toml and in the manifests.

pub(crate) mod cross;
pub(crate) mod deny;
pub(crate) mod docs;
pub(crate) mod features;
pub(crate) mod minimal_versions;
pub(crate) mod msrv;
pub(crate) mod package;
pub(crate) mod public_api;
pub(crate) mod semver;
mod tool;
