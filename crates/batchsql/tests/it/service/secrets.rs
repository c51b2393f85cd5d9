//! Owns the checks of the script that makes the secrets of production: what it makes, what it keeps, and that it never
//! makes a certificate that the stack does not trust.
//! Must not know which programs read the secrets.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::program::{ROOT, make_secrets, run_make_secrets, secrets};

/// The servers, as their certificates are called.
const SERVERS: [&str; 4] = ["app", "prometheus", "alertmanager", "grafana"];

fn files(folder: &TempDir) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

/// Names of files that are new, gone or different.
fn changed(before: &BTreeMap<String, Vec<u8>>, folder: &TempDir) -> Vec<String> {
    let after = files(folder);
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// Containers run as unprivileged users, and no container gets the key of the authority.
#[track_caller]
fn has_its_modes(folder: &TempDir) {
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    for name in files(folder).keys() {
        assert_eq!(mode(name), if name == "ca.key" { 0o400 } else { 0o444 }, "{name}");
    }
    assert_eq!(mode("."), 0o700);
}

fn remove(folder: &TempDir, names: &[&str]) {
    for name in names {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
}

/// Whether the script succeeded, and its output.
fn run(folder: &TempDir) -> (bool, String) {
    let output = run_make_secrets(folder.path());
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

fn openssl(folder: &TempDir, arguments: &str) -> String {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn all_are_trusted(folder: &TempDir) {
    for server in SERVERS {
        openssl(folder, &format!("verify -CAfile ca.pem {server}.pem"));
        let of_certificate = openssl(folder, &format!("x509 -pubkey -noout -in {server}.pem"));
        assert_eq!(openssl(folder, &format!("pkey -pubout -in {server}.key")), of_certificate, "{server}");
    }
}

/// Signs the certificate of a server anew, for so many days.
fn sign_for(folder: &TempDir, server: &str, days: i32) {
    let request = format!("req -new -key {server}.key -subj /CN={server} -out request");
    openssl(folder, &request);
    remove(folder, &[&format!("{server}.pem")]);
    openssl(
        folder,
        &format!("x509 -req -in request -CA ca.pem -CAkey ca.key -set_serial 1 -days {days} -out {server}.pem"),
    );
    remove(folder, &["request"]);
}

#[test]
fn secrets_are_made_once_and_only_what_is_missing_is_made_again() {
    let folder = secrets();
    let before = files(&folder);
    assert!(before.values().all(|content| !content.is_empty()), "{:?}", before.keys());
    has_its_modes(&folder);

    make_secrets(folder.path());
    assert_eq!(files(&folder), before);
    fs::remove_file(folder.path().join("metrics_token")).unwrap();
    fs::remove_file(folder.path().join("app.pem")).unwrap();
    make_secrets(folder.path());
    assert_eq!(changed(&before, &folder), ["app.key", "app.pem", "metrics_token"]);

    // What the compose file mounts is what the script makes.
    let file = fs::read_to_string(Path::new(ROOT).join("docker/docker-compose.prod.yml")).unwrap();
    let mounted: Vec<_> =
        file.split("{file: '${SECRETS:-./secrets}/").skip(1).filter_map(|s| s.split('\'').next()).collect();
    assert!(mounted.len() > 10 && mounted.iter().all(|name| before.contains_key(*name)), "{mounted:?}");
}

#[test]
fn the_authority_is_never_replaced_when_its_key_was_moved_away() {
    let folder = secrets();
    let key = fs::read(folder.path().join("ca.key")).unwrap();
    remove(&folder, &["ca.key", "metrics_token"]);
    let before = files(&folder);
    // Nothing must be signed, so the key is not needed.
    assert_eq!(run(&folder), (true, String::new()));
    assert_eq!(changed(&before, &folder), ["metrics_token"]);
    has_its_modes(&folder);

    remove(&folder, &["app.pem", "metrics_token"]);
    let before = files(&folder);
    let (is_made, said) = run(&folder);
    assert!(!is_made && said.contains("app.pem cannot be signed without ca.key"), "{said}");
    assert_eq!(changed(&before, &folder), ["metrics_token"]);
    has_its_modes(&folder);

    fs::write(folder.path().join("ca.key"), key).unwrap();
    make_secrets(folder.path());
    assert_eq!(changed(&before, &folder), ["app.key", "app.pem", "ca.key", "metrics_token"]);
    all_are_trusted(&folder);
    has_its_modes(&folder);
}

#[test]
fn a_key_without_its_authority_signs_nothing() {
    let folder = secrets();
    let authority = fs::read(folder.path().join("ca.pem")).unwrap();
    remove(&folder, &["ca.pem", "app.pem"]);
    let before = files(&folder);
    let (is_made, said) = run(&folder);
    assert!(!is_made && said.contains("put ca.pem back"), "{said}");
    assert_eq!(changed(&before, &folder), [""; 0]);

    // Of another authority.
    fs::write(folder.path().join("ca.pem"), authority).unwrap();
    let other = secrets();
    remove(&folder, &["ca.key"]);
    fs::copy(other.path().join("ca.key"), folder.path().join("ca.key")).unwrap();
    let before = files(&folder);
    let (is_made, said) = run(&folder);
    assert!(!is_made && said.contains("is ca.key the key of ca.pem?"), "{said}");
    assert!(said.contains("private key"), "openssl is quoted: {said}");
    assert_eq!(changed(&before, &folder), [""; 0]);
}

#[test]
fn certificates_of_ones_own_are_kept_and_those_that_nobody_trusts_are_found() {
    // As a company provides them: without the key of its authority, and without a certificate for Grafana.
    let company = secrets();
    let folder = tempfile::tempdir().unwrap();
    let of_company = ["ca.pem", "app.pem", "app.key", "prometheus.pem", "prometheus.key", "alertmanager.pem"];
    for name in of_company {
        fs::copy(company.path().join(name), folder.path().join(name)).unwrap();
    }
    let (is_made, said) = run(&folder);
    assert!(!is_made && said.contains("alertmanager.pem is here without alertmanager.key"), "{said}");
    fs::copy(company.path().join("alertmanager.key"), folder.path().join("alertmanager.key")).unwrap();
    assert_eq!(run(&folder), (true, String::new()));
    let theirs = files(&company);
    let same = files(&folder).into_iter().filter(|(name, content)| theirs[name] == *content);
    assert_eq!(same.filter(|(name, _)| name != "database_url").count(), of_company.len() + 1);

    // A certificate of an earlier authority.
    let folder = secrets();
    remove(&folder, &["ca.pem", "ca.key"]);
    let (is_made, said) = run(&folder);
    assert!(!is_made && said.contains("app.pem was not signed by ca.pem"), "{said}");
}

#[test]
fn a_certificate_that_ends_soon_is_made_anew_and_not_all_end_on_one_day() {
    let folder = secrets();
    let end = |server: &str| openssl(&folder, &format!("x509 -enddate -noout -in {server}.pem"));
    let ends: std::collections::BTreeSet<_> = SERVERS.map(end).into_iter().collect();
    assert_eq!(ends.len(), SERVERS.len(), "{ends:?}");
    // Browsers and other clients reject certificates that are valid for longer than 398 days.
    for server in SERVERS {
        let output = Command::new("openssl")
            .args(["x509", "-noout", "-checkend", &(398 * 86_400).to_string(), "-in"])
            .arg(folder.path().join(format!("{server}.pem")))
            .output();
        assert!(!output.unwrap().status.success(), "{server} is valid for too long");
    }

    sign_for(&folder, "app", 31);
    sign_for(&folder, "prometheus", 29);
    sign_for(&folder, "alertmanager", -1);
    let before = files(&folder);
    make_secrets(folder.path());
    let renewed = ["alertmanager.key", "alertmanager.pem", "prometheus.key", "prometheus.pem"];
    assert_eq!(changed(&before, &folder), renewed);
    all_are_trusted(&folder);
    has_its_modes(&folder);

    // Without the key of the authority the script can only warn, and only while the certificate is valid.
    sign_for(&folder, "app", 29);
    let key = fs::read(folder.path().join("ca.key")).unwrap();
    remove(&folder, &["ca.key"]);
    let before = files(&folder);
    let (is_made, said) = run(&folder);
    assert!(is_made && said.contains("app.pem ends within thirty days"), "{said}");
    assert_eq!(changed(&before, &folder), [""; 0]);
    fs::write(folder.path().join("ca.key"), key).unwrap();
    sign_for(&folder, "app", -1);
    remove(&folder, &["ca.key"]);
    let (is_made, said) = run(&folder);
    assert!(!is_made && said.contains("app.pem cannot be signed without ca.key"), "{said}");
}
