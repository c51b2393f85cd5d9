//! Owns the check of the Dockerfile without building it: its stages, users, sources and arguments.
//! Must not know compose files, except for the stages that they name.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::program::ROOT;

const TARGETS: [(&str, &str); 3] = [
    ("app", "docker/docker-compose.prod.yml"),
    ("suite", "docker/docker-compose.integration.yml"),
    ("server", "docker/docker-compose.cluster.yml"),
];

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// Instructions without comments, each on one line.
fn instructions() -> Vec<String> {
    let file = read("docker/Dockerfile");
    let lines: Vec<_> = file.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect()
}

struct Stage {
    name: String,
    base: String,
    instructions: Vec<String>,
}

fn stages() -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for line in instructions() {
        match (line.strip_prefix("FROM ").and_then(|rest| rest.split_once(" AS ")), stages.last_mut()) {
            (Some((base, name)), _) => {
                stages.push(Stage { name: name.to_owned(), base: base.to_owned(), instructions: Vec::new() });
            }
            (None, Some(stage)) => stage.instructions.push(line),
            (None, None) => assert!(line.starts_with("ARG "), "{line} comes before the first stage"),
        }
    }
    stages
}

/// The last instruction of this kind that holds for a stage.
fn inherited(stages: &[Stage], name: &str, kind: &str) -> Option<String> {
    let stage = stages.iter().find(|stage| stage.name == name)?;
    let own = stage.instructions.iter().rev().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    own.map(str::to_owned).or_else(|| inherited(stages, &stage.base, kind))
}

/// Whether a path of the repository gets into a build. The file excludes everything and then names the exceptions.
fn is_let_through(path: &Path) -> bool {
    let file = read(".dockerignore");
    let mut patterns = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(patterns.next(), Some("*"), ".dockerignore does not start with `*`");
    patterns.any(|pattern| path.starts_with(pattern.strip_prefix('!').expect("only exceptions follow")))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Without `..`, as far as the text alone shows it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_stage_is_built_on_one_that_exists_and_what_is_started_is_not_root() {
    let stages = stages();
    for (number, stage) in stages.iter().enumerate() {
        let is_known = |name: &str| stages[..number].iter().any(|stage| stage.name == name);
        let base = &stage.base;
        assert!(is_known(base) || base.contains(":${"), "{}: {base} is neither a stage nor a version", stage.name);
        for line in &stage.instructions {
            let from = line.strip_prefix("COPY --from=").and_then(|rest| rest.split(' ').next());
            assert!(from.is_none_or(is_known), "{}: {line}", stage.name);
        }
    }
    let workflow = read(".github/workflows/ci.yml");
    for (target, file) in TARGETS {
        assert!(read(file).contains(&format!(" target: {target}\n")), "{file} builds {target}");
        assert!(workflow.contains(&format!("docker build -f docker/Dockerfile --target {target} ")), "{target}");
        let user = inherited(&stages, target, "USER").unwrap_or_else(|| panic!("{target} runs as root"));
        // Kubernetes cannot see from a name that it is not root.
        let ids: Vec<u32> = user.split(':').map(|id| id.parse().unwrap()).collect();
        assert!(ids.len() == 2 && !ids.contains(&0), "{target} runs as {user}");
        let entry = inherited(&stages, target, "ENTRYPOINT").unwrap();
        let program = entry.trim_matches(['[', ']', '"']);
        let stage = stages.iter().find(|stage| stage.name == target).unwrap();
        // The program exists, from the stage that built it.
        let copy =
            stage.instructions.iter().find(|line| line.ends_with(&format!(" /usr/local/bin/{program}"))).unwrap();
        let (from, path) = copy.strip_prefix("COPY --from=").unwrap().split_once(' ').unwrap();
        let built = stages.iter().find(|stage| stage.name == from).unwrap();
        let path = path.split(' ').next().unwrap();
        let install = format!("/release/examples/{program} {path}");
        let install = [install, format!("/release/{program} {path}")];
        let installs = |line: &String| install.iter().any(|install| line.ends_with(install));
        assert!(built.instructions.iter().any(installs), "{from} makes no {path}");
        let is_locked = |line: &String| line.contains("cargo build --locked --release ");
        assert!(built.instructions.iter().any(is_locked), "{from}");
    }
}

#[test]
fn what_a_build_needs_is_let_through_and_nothing_that_is_secret() {
    let copies = instructions().into_iter().filter(|line| line.starts_with("COPY ") && !line.contains("--from="));
    assert_eq!(copies.collect::<Vec<_>>(), ["COPY . ."]);
    for name in
        ["docker/secrets/metrics_token", "docker/production.env", "target/debug", ".git/config", "batchsql-report"]
    {
        assert!(!is_let_through(Path::new(name)), "{name}");
    }

    // The exceptions are enough to read the workspace, and the lock file matches it.
    let context = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(ROOT).unwrap();
    let mut sources = Vec::new();
    for path in fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()) {
        match path.strip_prefix(&root).is_ok_and(is_let_through) {
            true if path.is_dir() => files_below(&path, &mut sources),
            is_source => sources.extend(is_source.then_some(path)),
        }
    }
    assert!(sources.len() > 100, "{sources:?}");
    for from in sources {
        let to = context.path().join(from.strip_prefix(&root).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]);
    let metadata = metadata.current_dir(context.path()).output().unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();

    // Every program that is built exists, and its required features are enabled.
    for (package, program) in [("batchsql-suite", "batchsql-suite"), ("batchsql", "monitored_app")] {
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|it| it["name"] == package).unwrap();
        let targets = package["targets"].as_array().unwrap();
        let kinds = |target: &&serde_json::Value| target["kind"][0] == "bin" || target["kind"][0] == "example";
        let target = targets.iter().filter(kinds).find(|it| it["name"] == program).unwrap();
        let needed = target["required-features"].as_array().cloned().unwrap_or_default();
        let built = instructions().into_iter().find(|line| line.contains(&format!(" {program} "))).unwrap();
        let mut words = built.split(' ').skip_while(|word| *word != "--features").skip(1);
        let mut features: Vec<_> = words.next().unwrap_or_default().split(',').collect();
        let default = package["features"]["default"].as_array().cloned().unwrap_or_default();
        features.extend(default.iter().filter_map(|feature| feature.as_str()));
        for feature in needed {
            assert!(features.contains(&feature.as_str().unwrap()), "{program} lacks {feature}");
        }
    }

    // Files that are compiled into a program are in the context.
    let mut files = Vec::new();
    files_below(&context.path().join("crates"), &mut files);
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let is_built = file.components().any(|part| part.as_os_str() == "src" || part.as_os_str() == "examples");
        let text = fs::read_to_string(file).unwrap();
        // Guides are included when their examples are tested, and in no build.
        let text = text.replace("#[doc = include_str!(\"../../../docs/", "");
        let macros = ["include_str!(\"", "include_bytes!(\""].into_iter().flat_map(|name| text.split(name).skip(1));
        for name in macros.filter(|_| is_built).filter_map(|rest| rest.split('"').next()) {
            let path = plain(&file.parent().unwrap().join(name));
            assert!(path.is_file(), "{}: {name} is not let through", file.display());
        }
    }
}

#[test]
fn images_are_built_with_the_oldest_rust_that_is_promised() {
    let promised = read("Cargo.toml");
    let promised = promised.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(instructions().contains(&format!("ARG RUST={promised}")), "{promised}");
}
