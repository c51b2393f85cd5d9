//! The layers of the workspace, which `docs/ARCHITECTURE.md` explains, as data and as a test.
//! Each rule is a function from members to complaints, and each has a test in which it must find one.

use std::{collections::BTreeMap, fs};

use cargo_metadata::{DependencyKind, MetadataCommand};

const LIBRARIES: &[&str] = &[
    "batchsql-arrow",
    "batchsql-core",
    "batchsql-derive",
    "batchsql-durable",
    "batchsql-feed",
    "batchsql-log",
    "batchsql-nats",
    "batchsql-sql",
    "batchsql-testkit",
    "batchsql-sqlite",
    "batchsql-postgres",
    "batchsql-mysql",
    "batchsql-redis",
    "batchsql-metrics",
    "batchsql-prometheus",
];

/// Each crate and the workspace crates that it may use outside its tests.
const ALLOWED: &[(&str, &[&[&str]])] = &[
    ("batchsql-core", &[]),
    ("batchsql-arrow", &[&["batchsql-core"]]),
    ("batchsql-derive", &[]),
    ("batchsql-log", &[]),
    ("batchsql-feed", &[&["batchsql-core"]]),
    ("batchsql-durable", &[&["batchsql-core", "batchsql-feed", "batchsql-log"]]),
    ("batchsql-nats", &[&["batchsql-core", "batchsql-feed", "batchsql-log"]]),
    ("batchsql-sql", &[&["batchsql-core"]]),
    ("batchsql-testkit", &[&["batchsql-core"]]),
    ("batchsql-sqlite", &[&["batchsql-core", "batchsql-sql"]]),
    ("batchsql-postgres", &[&["batchsql-core", "batchsql-sql"]]),
    ("batchsql-mysql", &[&["batchsql-core", "batchsql-sql"]]),
    ("batchsql-redis", &[&["batchsql-core"]]),
    ("batchsql-metrics", &[&["batchsql-core"]]),
    ("batchsql-prometheus", &[&["batchsql-core", "batchsql-metrics"]]),
    ("batchsql", &[LIBRARIES]),
    ("batchsql-server", &[&["batchsql"]]),
    ("batchsql-testserver", &[]),
    ("batchsql-monitoring", &[&["batchsql-core", "batchsql-metrics"]]),
    ("batchsql-suite", &[LIBRARIES, &["batchsql", "batchsql-testserver"]]),
    ("xtask", &[]),
];

/// The crates that may use a SQL client outside their tests. The same rule is in `deny.toml`.
const SQL_USERS: &[&str] = &["batchsql-sqlite", "batchsql-postgres", "batchsql-mysql", "batchsql-suite"];
const SQL_CLIENTS: &[&str] = &["sqlx", "rusqlite"];

/// The inner crates of sqlx have no stable interface: no crate uses them directly, not even in tests.
const SQLX_INNER: &[&str] = &["sqlx-core", "sqlx-postgres", "sqlx-mysql", "sqlx-sqlite"];

#[derive(Debug, Clone)]
struct Member {
    name: String,
    license: Option<String>,
    dependencies: Vec<Dependency>,
    manifest: String,
}

#[derive(Debug, Clone)]
struct Dependency {
    name: String,
    only_for_tests: bool,
}

#[test]
fn the_workspace_keeps_its_direction() {
    let members = workspace_members();
    assert!(members.iter().any(|member| member.name == "batchsql-core"), "no workspace was read: {members:?}");
    let complaints = [layering(&members), sql_clients(&members), manifests(&members)].concat();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn workspace_members() -> Vec<Member> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata runs here");
    metadata.workspace_packages().into_iter().map(member).collect()
}

fn member(package: &cargo_metadata::Package) -> Member {
    let dependencies = package.dependencies.iter().map(|dependency| Dependency {
        name: dependency.name.clone(),
        only_for_tests: dependency.kind == DependencyKind::Development,
    });
    Member {
        name: package.name.to_string(),
        license: package.license.clone(),
        dependencies: dependencies.collect(),
        manifest: fs::read_to_string(&package.manifest_path).expect("cargo has just read this manifest"),
    }
}

fn layering(members: &[Member]) -> Vec<String> {
    let mut complaints = Vec::new();
    for member in members {
        let name = &member.name;
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| known == name) else {
            complaints.push(format!("{name} is new: add it to ALLOWED with the workspace crates that it may use"));
            continue;
        };
        for Dependency { name: used, .. } in member.dependencies.iter().filter(|used| !used.only_for_tests) {
            let in_workspace = members.iter().any(|other| other.name == *used);
            if in_workspace && !allowed.concat().contains(&used.as_str()) {
                complaints.push(format!("{name} may not depend on {used}: it is not in a lower layer"));
            }
        }
    }
    complaints
}

fn sql_clients(members: &[Member]) -> Vec<String> {
    let mut complaints = Vec::new();
    for Member { name, dependencies, .. } in members {
        for Dependency { name: used, only_for_tests } in dependencies {
            let used = used.as_str();
            if SQL_CLIENTS.contains(&used) && !only_for_tests && !SQL_USERS.contains(&name.as_str()) {
                complaints.push(format!("{name} may not depend on {used}: only {} may", SQL_USERS.join(", ")));
            }
            if SQLX_INNER.contains(&used) {
                complaints.push(format!("{name} may not depend on {used}: depend on sqlx and its features"));
            }
        }
    }
    complaints
}

fn manifests(members: &[Member]) -> Vec<String> {
    let mut complaints = Vec::new();
    for Member { name, license, manifest, .. } in members {
        if license.as_ref().is_none_or(|license| license.trim().is_empty()) {
            complaints.push(format!("{name} has no licence: write `license.workspace = true`"));
        }
        let manifest = read(manifest);
        if !manifest.workspace_lints {
            complaints
                .push(format!("{name} does not use the lints of the workspace: write `[lints] workspace = true`"));
        }
        for (dependency, _) in manifest.dependencies.iter().filter(|(_, from_workspace)| !**from_workspace) {
            complaints.push(format!("{name} has its own version of {dependency}: write `workspace = true`"));
        }
    }
    complaints
}

/// The parts of a manifest that cargo metadata does not report.
#[derive(Debug, Default)]
struct Manifest {
    workspace_lints: bool,
    /// Section and key of each dependency, and whether it comes from the workspace table, or from a folder for tests.
    dependencies: BTreeMap<String, bool>,
}

/// Reads the sections of a manifest: `key = value`, where a list may go over several lines.
fn read(text: &str) -> Manifest {
    let mut manifest = Manifest::default();
    let mut section = String::new();
    let mut lines = text.lines().map(|line| line.split_once('#').map_or(line, |(code, _)| code).trim());
    while let Some(line) = lines.next() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').trim().to_owned();
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let mut value = value.to_owned();
        while value.matches('[').count() > value.matches(']').count() {
            let Some(more) = lines.next() else { break };
            value.push_str(more);
        }
        manifest.entry(&section, key.trim(), &value);
    }
    manifest
}

impl Manifest {
    fn entry(&mut self, section: &str, key: &str, value: &str) {
        let (name, last_key) = key.split_once('.').unwrap_or((key, ""));
        let value: String = value.split_whitespace().collect();
        let is_true = value == "true";
        if is_true && matches!((section, key), ("lints", "workspace") | ("", "lints.workspace")) {
            self.workspace_lints = true;
        }
        if is_dependency_table(section) {
            let inline = value.strip_prefix('{').and_then(|value| value.strip_suffix('}')).unwrap_or_default();
            let from_workspace =
                (last_key == "workspace" && is_true) || inline.split(',').any(|part| part == "workspace=true");
            // Without a version cargo leaves it out of the package, which may then be published before the other.
            let only_path =
                section.ends_with("dev-dependencies") && inline.starts_with("path=") && !inline.contains(',');
            self.dependency(format!("{section}.{name}"), from_workspace || only_path);
        } else if section.rsplit_once('.').is_some_and(|(table, _)| is_dependency_table(table)) {
            self.dependency(section.to_owned(), key == "workspace" && is_true);
        }
    }

    /// One dependency may be spread over several lines, only one of which names the workspace.
    fn dependency(&mut self, path: String, from_workspace: bool) {
        *self.dependencies.entry(path).or_default() |= from_workspace;
    }
}

/// `[dependencies]` and similar tables, including those of one target.
fn is_dependency_table(section: &str) -> bool {
    let last = section.rsplit_once('.').map_or(section, |(_, last)| last);
    ["dependencies", "dev-dependencies", "build-dependencies"].contains(&last)
}

/// A valid member, for tests that break one rule.
fn sample(name: &str, dependencies: &[&str]) -> Member {
    let dependency = |name: &&str| Dependency { name: (*name).to_owned(), only_for_tests: false };
    Member {
        name: name.to_owned(),
        license: Some("MIT".to_owned()),
        dependencies: dependencies.iter().map(dependency).collect(),
        manifest: "[lints]\nworkspace = true\n".to_owned(),
    }
}

/// The rule has exactly one complaint, and it names everything in `about`.
fn complains(complaints: &[String], about: &[&str]) {
    let [complaint] = complaints else { panic!("expected one complaint about {about:?}, got {complaints:?}") };
    assert!(about.iter().all(|word| complaint.contains(word)), "{complaint:?} does not name {about:?}");
}

#[test]
fn a_dependency_on_a_higher_layer_is_refused() {
    let metrics = sample("batchsql-metrics", &["batchsql-core", "metrics"]);
    let core = sample("batchsql-core", &["tokio"]);
    assert!(layering(&[metrics.clone(), core]).is_empty());

    let core = sample("batchsql-core", &["batchsql-metrics"]);
    complains(&layering(&[metrics.clone(), core.clone()]), &["batchsql-core", "batchsql-metrics"]);

    let mut only_in_tests = core;
    only_in_tests.dependencies[0].only_for_tests = true;
    assert!(layering(&[metrics, only_in_tests]).is_empty());
}

#[test]
fn an_unknown_crate_is_refused() {
    complains(&layering(&[sample("batchsql-oracle", &[])]), &["batchsql-oracle", "ALLOWED"]);
}

#[test]
fn a_sql_client_outside_the_drivers_is_refused() {
    assert!(sql_clients(&[sample("batchsql-sqlite", &["rusqlite"]), sample("batchsql-suite", &["sqlx"])]).is_empty());
    complains(&sql_clients(&[sample("batchsql-core", &["sqlx"])]), &["batchsql-core", "sqlx"]);
    complains(&sql_clients(&[sample("batchsql-metrics", &["rusqlite"])]), &["batchsql-metrics", "rusqlite"]);
}

#[test]
fn an_inner_crate_of_sqlx_is_refused_everywhere() {
    let mut driver = sample("batchsql-postgres", &["sqlx", "sqlx-postgres"]);
    complains(&sql_clients(std::slice::from_ref(&driver)), &["batchsql-postgres", "sqlx-postgres"]);
    driver.dependencies[1].only_for_tests = true;
    complains(&sql_clients(&[driver]), &["batchsql-postgres", "sqlx-postgres"]);
}

#[test]
fn a_missing_licence_is_refused() {
    let mut core = sample("batchsql-core", &[]);
    assert!(manifests(std::slice::from_ref(&core)).is_empty());
    core.license = None;
    complains(&manifests(&[core]), &["batchsql-core", "licence"]);
}

#[test]
fn missing_lints_are_refused() {
    let mut core = sample("batchsql-core", &[]);
    for manifest in ["", "[lints]\nworkspace = false", "[other]\nworkspace = true", "#[lints]\nworkspace = true"] {
        core.manifest = manifest.to_owned();
        complains(&manifests(std::slice::from_ref(&core)), &["batchsql-core", "lints"]);
    }
}

#[test]
fn a_dependency_with_its_own_version_is_refused() {
    let check = |manifest: &str, refused: Option<&str>| {
        let mut core = sample("batchsql-core", &[]);
        core.manifest.push_str(manifest);
        match refused {
            Some(name) => complains(&manifests(&[core]), &["batchsql-core", name]),
            None => assert!(manifests(&[core]).is_empty(), "{manifest}"),
        }
    };
    check("[dependencies]\na.workspace = true", None);
    check("[dependencies]\na = { workspace = true, optional = true } # why", None);
    check("[dependencies]\na = { workspace = true, features = [\n  \"b\",\n  \"c\",\n] }\nd.workspace = true", None);
    check("[dependencies.a]\nworkspace = true\noptional = true", None);
    check("[dependencies]\na.workspace = true\na.features = [\"b\"]", None);
    check("[target.'cfg(unix)'.dependencies]\na.workspace = true", None);
    check("[features]\na = [\"dep:a\"]", None);
    check("[dev-dependencies]\na = { path = \"../a\" } # why", None);

    check("[dependencies]\na = \"1\"", Some("dependencies.a"));
    check("[dependencies]\na = { version = \"1\", features = [\"b\"] }", Some("dependencies.a"));
    check("[dependencies]\na = { path = \"../a\" }", Some("dependencies.a"));
    check("[dev-dependencies]\na = { path = \"../a\", version = \"1\" }", Some("dev-dependencies.a"));
    check("[build-dependencies]\na.version = \"1\"", Some("build-dependencies.a"));
    check("[dependencies.a]\nversion = \"1\"", Some("dependencies.a"));
    check("[target.'cfg(unix)'.dependencies]\na = \"1\"", Some("cfg(unix)"));
    check("[dependencies]\na = { workspace = false, version = \"1\" }", Some("dependencies.a"));
}
