//! The command line as a person or a script uses it: results, texts and exit statuses of the real executable.

use crate::{
    bad_input::associate,
    support::{Archive, SOON, Start, cairn, directory, eventually, python, repository, run, synthetic_files},
};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

/// Runs `cairn` without an archive; gives exit status, standard output and standard error.
fn call(arguments: &[&str]) -> (i32, String, String) {
    read(Command::new(cairn()).args(arguments).env_remove("CAIRN_SERVER").stdin(Stdio::null()).output().unwrap())
}

fn ask(archive: &Archive, arguments: &[&str]) -> (i32, String, String) {
    read(archive.command(arguments))
}

fn read(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The TOML of README.md.
fn documented_configuration() -> String {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

#[test]
fn every_command_explains_itself() {
    let (status, help, _) = call(&["--help"]);
    assert_eq!(status, 0);
    assert!(help.starts_with("A Vendor Neutral Archive"), "{help}");
    for documented in ["0 done", "1 failed", "2 usage", "3 some", "4 verification", "5 server", "64 config", "130 int"]
    {
        assert!(help.contains(documented), "{documented}: {help}");
    }
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 11, "{names:?}");
    for name in names.iter().filter(|name| **name != "help") {
        let (status, help, _) = call(&[name, "--help"]);
        assert!(status == 0 && help.contains("Usage: cairn"), "{name}: {help}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (status, script, _) = call(&["completion", shell]);
        assert!(status == 0 && script.contains("quarantine"), "{shell}");
    }
}

#[test]
fn arguments_that_cannot_be_used_are_exit_status_2() {
    for wrong in [
        &["nonsense"][..],
        &["query", "nonsense"],
        &["query", "studies", "-k", "Nonsense=1"],
        &["query", "studies", "-k", "PatientName"],
        &["events", "tail", "--from", "yesterday"],
        &["events", "show", "somewhere"],
        &["conflicts", "show", "not.a.uid"],
        &["parked", "show", "somewhere"],
        &["parked", "repair", "main/1/0/0", "--reason", "no remedy"],
        &["parked", "repair", "main/1/0/0", "--reason", "x", "--dismiss", "--payload", "f", "--type", "t"],
        &["import"],
        &["import", "x", "--ae", "LONGER THAN 16 CHARACTERS"],
        &["serve", "--dicom", "nowhere"],
        &["serve", "--destination", "VIEWER"],
        &["completion", "tcsh"],
    ] {
        let (status, out, error) = call(wrong);
        assert!(status == 2 && out.is_empty() && !error.is_empty(), "{wrong:?}: {status} {out} {error}");
    }
}

#[test]
fn an_archive_that_is_not_there_is_exit_status_5_and_named() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("http://{nobody}");
    for command in [
        &["query", "studies"][..],
        &["index", "status"],
        &["index", "verify"],
        &["events", "tail"],
        &["conflicts", "list"],
        &["parked", "list"],
        &["quarantine", "list"],
        &["import", "Cargo.toml"],
    ] {
        let (status, _, error) = call(&[command, &["--server", &server]].concat());
        assert!(
            status == 5 && error.contains(&server) && error.contains("cairn serve"),
            "{command:?}: {status} {error}"
        );
    }
}

#[test]
fn the_configuration_is_checked_shown_with_origins_and_described() {
    let folder = directory();
    let file = folder.path().join("cairn.toml");
    let config = shown(&file);
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        call(&["config", "check", "--config", &config])
    };
    let example = documented_configuration();
    let (status, out, error) = check(&example);
    assert!(status == 0 && out.contains("can be used"), "{out}{error}");
    let (status, _, error) = check("[dicom]\nae_title = \"A\"\nae_titel = \"B\"\n");
    assert!(status == 64 && error.contains("ae_titel") && error.contains("line 3"), "{status} {error}");
    assert!(error.contains("cairn config schema"), "{error}");
    let (status, _, error) = check("[dicom\n");
    assert!(status == 64 && error.contains("line 1"), "{error}");
    let (status, _, error) = call(&["config", "check", "--config", "/nonexistent/cairn.toml"]);
    assert!(status == 64 && error.contains("/nonexistent/cairn.toml"), "{error}");

    fs::write(&file, "[dicom]\nae_title = \"FILE\"\n[site]\nname = \"file\"\n[http]\nlisten = \"127.0.0.1:1\"\n")
        .unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(folder.path().join("conf.d/10.toml"), "[site]\nname = \"beside\"\n").unwrap();
    let shown = Command::new(cairn())
        .args(["config", "show", "--origin", "--config", &config, "--ae-title", "FLAG", "--data", "elsewhere"])
        .args(["--destination", "VIEWER=10.0.0.7:104", "--dicom", "127.0.0.1:2"])
        .env("CAIRN__HTTP__LISTEN", "127.0.0.1:3")
        .env("CAIRN__DICOM__AE_TITLE", "ENV")
        .output();
    let (status, out, error) = read(shown.unwrap());
    assert_eq!(status, 0, "{error}");
    let effective: toml::Table = out.parse().unwrap();
    let value = |section: &str, key: &str| effective[section][key].as_str().unwrap().to_owned();
    assert_eq!(value("dicom", "ae_title"), "FLAG");
    assert_eq!(value("dicom", "listen"), "127.0.0.1:2");
    assert_eq!(value("site", "name"), "beside");
    assert_eq!(value("http", "listen"), "127.0.0.1:3");
    assert_eq!(value("data", "directory"), "elsewhere");
    assert_eq!(effective["ae"]["VIEWER"]["address"].as_str(), Some("10.0.0.7:104"));
    for origin in ["# dicom.ae_title: command line", "# http.listen: environment CAIRN__HTTP__LISTEN", "conf.d/10.toml"]
    {
        assert!(out.contains(origin), "{origin} in {out}");
    }
}

/// Whether a value fits a JSON Schema, as far as the words that ours uses; gives what does not fit.
fn misfit(schema: &Value, root: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#'));
        let Some(target) = target else { return Some(format!("{at}: {reference} leads nowhere")) };
        return misfit(target, root, value, at);
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[word].as_array() {
            let fits = choices.iter().any(|choice| misfit(choice, root, value, at).is_none());
            return (!fits).then(|| format!("{at}: none of {word}"));
        }
    }
    if let Some(constant) = schema.get("const") {
        return (constant != value).then(|| format!("{at}: not {constant}"));
    }
    if let Some(values) = schema["enum"].as_array() {
        return (!values.contains(value)).then(|| format!("{at}: not one of {values:?}"));
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("type {other} at {at}"),
    };
    let fits = match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        _ => true,
    };
    if !fits {
        return Some(format!("{at}: not of type {}", schema["type"]));
    }
    if let Some(items) = value.as_array() {
        return items.iter().find_map(|item| misfit(&schema["items"], root, item, at));
    }
    value.as_object()?.iter().find_map(|(key, value)| {
        let at = format!("{at}.{key}");
        match (schema["properties"].get(key), &schema["additionalProperties"]) {
            (Some(property), _) => misfit(property, root, value, &at),
            (None, Value::Bool(false)) => Some(format!("{at}: unknown")),
            (None, other) => misfit(other, root, value, &at),
        }
    })
}

#[test]
fn the_schema_describes_every_key_and_takes_what_the_executable_takes() {
    let (status, out, _) = call(&["config", "schema"]);
    assert_eq!(status, 0);
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert!(text(&schema, "$schema").contains("json-schema.org"));
    let json = |text: &str| serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
    let (_, defaults, _) = call(&["config", "show"]);
    for good in [documented_configuration(), defaults] {
        assert_eq!(misfit(&schema, &schema, &json(&good), "configuration"), None);
    }
    for wrong in
        ["[dicom]\nae_titel = \"X\"\n", "[nothing]\n", "[telemetry]\nlog_format = \"xml\"\n", "[site]\nname = 1\n"]
    {
        assert!(misfit(&schema, &schema, &json(wrong), "configuration").is_some(), "{wrong}");
    }
    undescribed(&schema, "configuration");
}

/// Every property says what it is for, itself or by the type that it names.
fn undescribed(root: &Value, at: &str) {
    let definitions = root["$defs"].as_object().unwrap();
    for (name, definition) in definitions.iter().map(|(name, d)| (name.as_str(), d)).chain([(at, root)]) {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            let described = property["description"].is_string();
            assert!(described, "{name}.{key} has no description");
        }
    }
}

#[test]
fn serve_says_where_it_listens_in_few_lines_and_refuses_what_it_must() {
    let folder = directory();
    let data = folder.path().join("data");
    let arguments: Vec<String> = ["--ae-title", "MINE"].map(str::to_owned).into();
    let archive = Archive::start_with(&data, Start { arguments, ..Start::default() });
    for address in [archive.dicom, archive.http, archive.grpc] {
        assert_ne!(address.port(), 0);
        assert!(address.ip().is_loopback());
    }
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    run("echoscu", &["-aec", "MINE", "-aet", "ANYONE", &host, &port]);

    let free = ["--dicom", "127.0.0.1:0", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    let second = shown(&data);
    let (status, out, error) = call(&[&["serve", "--data", &second][..], &free].concat());
    assert!(status == 1 && out.is_empty() && error.lines().count() == 1, "{status} {out} {error}");
    assert!(error.contains("in use by a running archive") && error.contains(&archive.pid().to_string()), "{error}");
    let taken = archive.dicom.to_string();
    let other = shown(&folder.path().join("other"));
    let (status, _, error) = call(&[&["serve", "--data", &other, "--dicom", &taken][..], &free[2..]].concat());
    assert!(status == 1 && error.contains(&taken) && error.contains("--dicom"), "{error}");
    let wide = ["serve", "--data", &other, "--dicom", "0.0.0.0:0"];
    let (status, _, error) = call(&[&wide[..], &free[2..]].concat());
    assert!(status == 64 && error.contains("--accept-unknown-callers"), "{error}");
    let wide = ["serve", "--data", &other, "--http", "0.0.0.0:0", "--dicom", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    let (status, _, error) = call(&wide);
    assert!(status == 64 && error.contains("--accept-any-http-client"), "{error}");
    archive.stop();

    // Start-up as a person sees it, with everything on standard output and error.
    let mut child = Command::new(cairn())
        .args([&["serve", "--data", &second][..], &free].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("an archive that runs", || data.join("endpoints.json").exists().then_some(()));
    signal("TERM", child.id());
    assert!(child.wait().unwrap().success());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.lines().count() < 10, "{said}");
}

#[test]
fn a_stop_takes_bounded_time_with_a_stalled_association_held() {
    let folder = directory();
    let environment = vec![("CAIRN__SHUTDOWN__GRACE", "1s".to_owned())];
    let mut archive = Archive::start_with(&folder.path().join("data"), Start { environment, ..Start::default() });
    let stalled = associate(archive.dicom);
    let mut half = TcpStream::connect(archive.http).unwrap();
    half.write_all(b"POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n").unwrap();
    let begun = Instant::now();
    signal("TERM", archive.pid());
    let status = archive.wait();
    assert!(status.success(), "{status}\n{}", archive.log());
    assert!(begun.elapsed() < SOON / 4, "{:?}", begun.elapsed());
    drop((stalled, half));
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

#[test]
fn import_takes_files_folders_and_a_dicomdir_and_reports_each() {
    let folder = directory();
    let files = synthetic_files(&folder.path().join("in/deep"), 31, 4);
    fs::write(folder.path().join("in/notes.txt"), "nothing of DICOM").unwrap();
    fs::write(folder.path().join("in/empty"), "").unwrap();
    let archive = Archive::start(&folder.path().join("data"));
    let (tree, report) = (shown(&folder.path().join("in")), folder.path().join("report.csv"));
    let (status, out, error) =
        ask(&archive, &["import", &tree, "--ae", "CD", "--issuer", "EAST", "--report", &shown(&report)]);
    assert_eq!(status, 0, "{out}{error}");
    let summary = format!("stored {}, repeated 0, conflicts 0, not DICOM 2, failed 0", files.len());
    assert!(out.contains(&summary), "{out}");
    let reported = fs::read_to_string(&report).unwrap();
    assert_eq!(reported.lines().next(), Some("file,result,sop_instance_uid,detail"));
    assert_eq!(reported.lines().count(), files.len() + 3);
    assert_eq!(reported.lines().filter(|line| line.contains(",stored,2.25.")).count(), files.len());
    assert!(reported.lines().any(|line| line.contains("notes.txt,not-dicom,,")), "{reported}");
    archive.settled();
    let patients = lines(&archive.ok(&["query", "patients", "-o", "json"]));
    assert!(!patients.is_empty() && patients.iter().all(|p| text(p, "IssuerOfPatientID") == "EAST"), "{patients:?}");
    let events = lines(&archive.ok(&["events", "tail", "--from", "beginning", "--no-follow", "-o", "json"]));
    let stored = events.iter().find(|event| text(event, "Type").contains("instance.stored")).unwrap();
    let whole = archive.ok(&["events", "show", text(stored, "Position")]);
    assert!(whole.contains("ce_id: ") && whole.contains("\"CD\"") && whole.contains("EAST"), "{whole}");
    let show = |form| archive.ok(&["events", "show", text(stored, "Position"), "-o", form]);
    let [whole] = &lines(&show("json"))[..] else { panic!("one line") };
    assert_eq!(text(whole, "position"), text(stored, "Position"));
    assert_eq!(text(&whole["headers"], "ce_type"), "cairn.instance.stored.v1");
    let event = &whole["event"];
    assert_eq!(text(&event["receipt"], "callingAeTitle"), "CD");
    assert_eq!(text(&event["senderProfile"], "issuerOfPatientId"), "EAST");
    assert_eq!(text(event, "studyInstanceUid"), text(stored, "Study"));
    assert!(show("csv").lines().any(|line| line.contains(",ce_id,")), "{}", show("csv"));

    // The same again from a medium: all repeats, and the one that is missing on it is said.
    let medium = folder.path().join("medium");
    let script = shown(&repository().join("tests/system/python/make_dicomdir.py"));
    let names: Vec<String> = files.iter().map(|file| shown(file)).collect();
    let to = shown(&medium);
    let arguments: Vec<&str> = [&script, &to].into_iter().chain(&names).map(String::as_str).collect();
    run(python(), &arguments);
    let dicomdir = shown(&medium.join("DICOMDIR"));
    let counts = archive.ok(&["import", &dicomdir, "--ae", "CD", "--issuer", "EAST", "-o", "json"]);
    let [counts] = &lines(&counts)[..] else { panic!("one line: {counts}") };
    assert_eq!((text(counts, "Stored"), text(counts, "Repeated")), ("0", files.len().to_string().as_str()));
    let (status, out, error) = ask(&archive, &["import", &dicomdir, "--ae", "CD", "--issuer", "EAST"]);
    assert!(status == 0 && out.contains(&format!("stored 0, repeated {}", files.len())), "{status} {out}{error}");
    fs::remove_file(first_file(&medium)).unwrap();
    let (status, out, error) = ask(&archive, &["import", &dicomdir, "--report", &shown(&report)]);
    assert!(status == 3 && out.contains("failed 1"), "{status} {out}{error}");
    assert_eq!(fs::read_to_string(&report).unwrap().lines().filter(|line| line.contains(",failed,")).count(), 1);
    let (status, _, error) = ask(&archive, &["import", "/nonexistent"]);
    assert!(status == 1 && error.contains("/nonexistent"), "{error}");
    archive.stop();
}

/// A file below the folder, other than DICOMDIR.
fn first_file(folder: &Path) -> PathBuf {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let below = entries.iter().find(|path| path.is_dir());
    below.map_or_else(|| entries.iter().find(|path| !path.ends_with("DICOMDIR")).unwrap().clone(), |b| first_file(b))
}

/// An import that hangs on a pipe after the first folder, with the journal of what it stored before.
fn hanging_import(archive: &Archive, first: &Path, pipe: &Path, last: &Path, journal: &Path) -> Child {
    Command::new(cairn())
        .args(["import", "--quiet", "--transfers", "1", "--resume"])
        .args([journal, first, pipe, last])
        .env("CAIRN_SERVER", format!("http://{}", archive.grpc))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn an_import_goes_on_where_it_was_killed_or_interrupted() {
    let folder = directory();
    let (first, last) = (folder.path().join("first"), folder.path().join("last"));
    let counts = (synthetic_files(&first, 41, 2).len(), synthetic_files(&last, 42, 2).len());
    let (pipe, journal) = (folder.path().join("pipe"), folder.path().join("journal"));
    run("mkfifo", &[&shown(&pipe)]);
    let archive = Archive::start(&folder.path().join("data"));
    let recorded = |journal: &Path| fs::read_to_string(journal).map_or(0, |text| text.lines().count());
    for (signalled, journal) in [("KILL", journal.clone()), ("INT", folder.path().join("second"))] {
        let mut import = hanging_import(&archive, &first, &pipe, &last, &journal);
        eventually("the first folder's files in the journal", || (recorded(&journal) == counts.0).then_some(()));
        signal(signalled, import.id());
        let begun = Instant::now();
        let status = import.wait().unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        if signalled == "INT" {
            assert_eq!(status.code(), Some(130));
        }
        assert_eq!(recorded(&journal), counts.0, "nothing behind the pipe was reached");
    }
    let resumed = ["import", "--resume", &shown(&journal), &shown(&first), &shown(&last)];
    let (status, out, error) = ask(&archive, &resumed);
    assert_eq!(status, 0, "{error}");
    assert!(out.contains(&format!("stored {},", counts.1)), "{out}");
    assert!(out.contains(&format!("stored by an earlier run: {}", counts.0)), "{out}");
    let (_, out, _) = ask(&archive, &resumed);
    assert!(out.contains("stored 0, repeated 0"), "{out}");
    assert!(out.contains(&format!("stored by an earlier run: {}", counts.0 + counts.1)), "{out}");
    archive.stop();
}

#[test]
fn queries_of_every_level_in_every_form() {
    let folder = directory();
    let made: Vec<_> = cairn_synthetic::studies(51, 3).collect();
    synthetic_files(&folder.path().join("in"), 51, 3);
    let archive = Archive::start(&folder.path().join("data"));
    let (_, out, _) = ask(&archive, &["query", "studies", "-o", "csv"]);
    assert!(out.starts_with("StudyDate,") && out.lines().count() == 1, "a header without rows: {out}");
    archive.ok(&["import", "--quiet", &shown(&folder.path().join("in"))]);
    archive.settled();
    let study = made[0].study_instance_uid.to_string();
    let key = format!("StudyInstanceUID={study}");
    let studies = lines(&archive.ok(&["query", "studies", "-o", "json", "-k", &key, "-i", "StudyTime"]));
    assert_eq!(studies.len(), 1);
    assert_eq!(text(&studies[0], "StudyInstanceUID"), study);
    assert!(studies[0]["StudyTime"].is_string());
    let instances = made.iter().filter(|made| made.study_instance_uid.to_string() == study).count();
    assert_eq!(text(&studies[0], "NumberOfStudyRelatedInstances"), instances.to_string());
    let by_tag = lines(&archive.ok(&["query", "studies", "-o", "json", "-k", &format!("0020,000D={study}")]));
    assert_eq!(by_tag.len(), 1);
    let series = lines(&archive.ok(&["query", "series", "-o", "json", "-k", &key]));
    assert!(!series.is_empty());
    let found = lines(&archive.ok(&["query", "instances", "-o", "json", "-k", &key]));
    assert_eq!(found.len(), instances);
    let id = text(&studies[0], "PatientID");
    let patients = lines(&archive.ok(&["query", "patients", "-o", "json", "-k", &format!("PatientID={id}")]));
    assert_eq!(text(&patients[0], "PatientID"), id);
    let table = archive.ok(&["query", "studies", "--limit", "2"]);
    assert!(table.starts_with("StudyDate") && table.lines().count() == 3, "{table}");
    let csv = archive.ok(&["query", "studies", "-o", "csv", "--offset", "2"]);
    assert_eq!(csv.lines().count(), 2, "{csv}");
    let (status, _, error) = ask(&archive, &["query", "studies", "-k", "StudyDate=nonsense"]);
    assert!(status == 1 && error.contains("00080020"), "{status} {error}");
    let status_of_index = lines(&archive.ok(&["index", "status", "-o", "json"]));
    assert_eq!(text(&status_of_index[0], "Studies"), "3");
    assert_eq!(text(&status_of_index[0], "LagEvents"), "0");
    for action in ["verify", "rebuild", "verify"] {
        assert!(archive.ok(&["index", action]).contains("equal"), "{action}");
    }
    assert_eq!(lines(&archive.ok(&["query", "studies", "-o", "json", "-k", &key])), {
        let mut plain = studies;
        plain.iter_mut().for_each(|study| drop(study.as_object_mut().unwrap().remove("StudyTime")));
        plain
    });
    archive.stop();
}

#[test]
fn generations_of_the_index_are_filled_compared_switched_and_asked() {
    let folder = directory();
    let file = folder.path().join("one");
    fs::write(&file, &cairn_synthetic::one_study(62, 0).remove(0).file).unwrap();
    let archive = Archive::start(&folder.path().join("data"));
    let begun = lines(&archive.ok(&["index", "rebuild", "--until", "2020-01-31T12:00:00Z", "-o", "json"]));
    assert_eq!((text(&begun[0], "Generation"), text(&begun[0], "Until")), ("2", ""));
    archive.ok(&["import", "--quiet", &shown(&file)]);
    archive.settled();
    let studies =
        |generation: &str| lines(&archive.ok(&["query", "studies", "-o", "json", "--generation", generation])).len();
    assert_eq!((studies("1"), studies("2")), (1, 0), "the archive as it stood before anything came");
    let (status, differing, _) = ask(&archive, &["index", "diff", "1", "2", "-o", "json"]);
    assert_eq!((status, lines(&differing).len()), (4, 1), "{differing}");

    let compared = lines(&archive.ok(&["index", "rebuild", "--no-switch", "-o", "json"]));
    assert_eq!(text(&compared[0], "Compared"), "equal");
    assert_eq!(text(&compared[0], "ServingState"), text(&compared[0], "State"));
    assert!(text(&compared[0], "Position").starts_with("main/1/"), "{compared:?}");
    assert_eq!(ask(&archive, &["index", "diff", "1", "3"]).0, 0);
    archive.ok(&["index", "pause"]);
    archive.ok(&["index", "resume"]);
    assert!(archive.ok(&["index", "switch", "3"]).contains("equal"));
    let roles = || {
        let all = lines(&archive.ok(&["index", "status", "-o", "json"]));
        all.iter().map(|one| format!("{} {}", text(one, "Generation"), text(one, "Role"))).collect::<Vec<_>>()
    };
    assert_eq!(roles(), ["3 serving", "1 kept", "2 frozen"]);
    archive.ok(&["index", "rollback"]);
    assert_eq!(roles(), ["1 serving", "2 frozen", "3 kept"]);
    assert_eq!(ask(&archive, &["index", "drop", "1"]).0, 1, "it serves");
    archive.ok(&["index", "drop", "2"]);
    archive.ok(&["index", "rebuild", "--detach"]);
    eventually("the rebuilt index serves", || (roles()[0] == "4 serving").then_some(()));
    assert_eq!(ask(&archive, &["index", "cancel"]).0, 1, "nothing is being filled");
    archive.stop();
}

#[test]
fn conflicts_are_chosen_from_and_refused_inputs_given_back() {
    let folder = directory();
    let made = cairn_synthetic::one_study(61, 0).remove(0);
    let (one, other, odd) = (folder.path().join("one"), folder.path().join("other"), folder.path().join("odd"));
    let mut bytes = made.file.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&one, &made.file).unwrap();
    fs::write(&other, bytes).unwrap();
    fs::write(&odd, "neither a file of DICOM nor a data set").unwrap();
    let archive = Archive::start(&folder.path().join("data"));
    archive.ok(&["import", "--quiet", &shown(&one)]);
    archive.settled();
    let said = archive.ok(&["import", "--quiet", &shown(&other)]);
    assert!(said.contains("conflicts 1"), "{said}");
    assert!(archive.ok(&["import", "--quiet", &shown(&odd)]).contains("not DICOM 1"));
    archive.settled();
    let uid = made.sop_instance_uid.to_string();
    let listed = eventually("the conflict's content compared", || {
        let listed = lines(&archive.ok(&["conflicts", "list", "-o", "json"]));
        listed.iter().any(|conflict| text(conflict, "Kind") == "content").then_some(listed)
    });
    assert_eq!(
        (listed.len(), text(&listed[0], "SOPInstanceUID"), text(&listed[0], "Versions")),
        (1, uid.as_str(), "2")
    );
    let shown_version = |said: &str, mark: &str| -> String {
        let line = said.lines().find(|line| line.trim_start().starts_with(mark)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let versions = lines(&archive.ok(&["conflicts", "show", &uid, "-o", "json"]));
    let told: Vec<_> = versions.iter().map(|version| (text(version, "Kind"), text(version, "Shown"))).collect();
    assert_eq!(told, [("content", "yes"), ("content", "no")]);
    assert!(
        versions.iter().all(|version| text(version, "SOPInstanceUID") == uid && text(version, "Blake3").len() == 64)
    );
    let before = archive.ok(&["conflicts", "show", &uid]);
    let kept = shown_version(&before, "kept");
    assert_eq!(ask(&archive, &["conflicts", "choose", &uid, "ffffffffffff", "--reason", "none"]).0, 1);
    let reason = "the second is right";
    archive.ok(&["conflicts", "choose", &uid, &kept[..16], "--reason", reason, "--by", "tester"]);
    archive.settled();
    let after = archive.ok(&["conflicts", "show", &uid]);
    assert_eq!(shown_version(&after, "shown"), kept, "{before}\n{after}");
    let events = archive.ok(&["events", "tail", "--from", "beginning", "--no-follow", "-o", "json"]);
    let chosen =
        lines(&events).into_iter().rev().find(|event| text(event, "Type").contains("cho")).expect("the choice");
    let whole = archive.ok(&["events", "show", text(&chosen, "Position")]);
    assert!(whole.contains(reason) && whole.contains("tester"), "{whole}");

    let refused = lines(&archive.ok(&["quarantine", "list", "-o", "json"]));
    assert_eq!(refused.len(), 1);
    let to = folder.path().join("got");
    archive.ok(&["quarantine", "get", text(&refused[0], "Id"), "--to", &shown(&to)]);
    assert_eq!(fs::read(&to).unwrap(), fs::read(&odd).unwrap());
    let again = ["quarantine", "get", text(&refused[0], "Id"), "--to", &shown(&to)];
    assert_eq!(ask(&archive, &again).0, 1, "a file that is there is not written over");
    archive.stop();
}

#[test]
fn events_are_followed_as_they_are_appended() {
    let folder = directory();
    let files = synthetic_files(&folder.path().join("in"), 71, 1);
    let archive = Archive::start(&folder.path().join("data"));
    archive.ok(&["import", "--quiet", &shown(&files[0])]);
    let study = cairn_synthetic::one_study(71, 0)[0].study_instance_uid.to_string();
    let one = ["events", "tail", "--from", "beginning", "--limit", "1", "--study", &study, "-o", "json"];
    let seen = lines(&archive.ok(&one));
    assert_eq!((seen.len(), text(&seen[0], "Study")), (1, study.as_str()));
    let since = lines(&archive.ok(&["events", "tail", "--from", "@0", "--no-follow", "-o", "json"]));
    assert!(since.len() >= 2, "an instance and its receipt: {since:?}");
    let partition = text(&seen[0], "Position").split('/').nth(2).unwrap().to_owned();
    let follow = ["events", "tail", "--from", "latest", "--partition", &partition, "--limit", "1", "-o", "csv"];
    let mut tail = Command::new(cairn())
        .args(follow)
        .env("CAIRN_SERVER", format!("http://{}", archive.grpc))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Where "latest" is depends on when the reader began: files are sent until it has seen one.
    for file in files.iter().skip(1).cycle() {
        archive.ok(&["import", "--quiet", &shown(file)]);
        if tail.try_wait().unwrap().is_some() {
            break;
        }
    }
    assert!(tail.wait().unwrap().success());
    let mut said = String::new();
    tail.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("Time,Position,Type,Study,Id\n") && said.lines().count() == 2, "{said}");
    archive.stop();
}

#[test]
fn the_doctor_finds_a_healthy_archive_and_what_ails_another() {
    let folder = directory();
    let data = folder.path().join("data");
    let archive = Archive::start(&data);
    let listeners = [archive.dicom, archive.http, archive.grpc].map(|address| address.to_string());
    let [dicom, http, grpc] = listeners.each_ref().map(String::as_str);
    let told = ["doctor", "-o", "json", "--dicom", dicom, "--http", http, "--grpc", grpc, "--data"];
    let (status, out, error) = call(&[&told[..], &[&shown(&data)]].concat());
    assert_eq!(status, 0, "{out}{error}");
    let checks = lines(&out);
    assert!(checks.iter().all(|check| text(check, "Result") == "ok"), "{out}");
    let names: Vec<&str> = checks.iter().map(|check| text(check, "Check")).collect();
    for name in ["configuration", "clock", "disk", "DICOM port", "ingest", "index", "DICOM echo"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    // Another data directory: the same ports are then someone else's.
    let (status, out, _) = call(&[&told[..], &[&shown(&folder.path().join("other"))]].concat());
    let wrong: Vec<Value> = lines(&out).into_iter().filter(|check| text(check, "Result") == "WRONG").collect();
    assert!(status == 1 && wrong.len() == 3, "{out}");
    // An archive that was killed left word of itself behind.
    archive.kill();
    let (status, out, _) = call(&["doctor", "-o", "json", "--data", &shown(&data)]);
    assert!(status == 1 && out.contains("DICOM echo"), "{out}");
    let bad = folder.path().join("bad.toml");
    fs::write(&bad, "[data]\nreserve_bytes = \"1000 TiB\"\n").unwrap();
    let (status, out, _) = call(&["doctor", "-o", "json", "--config", &shown(&bad), "--data", &shown(&data)]);
    let disk = lines(&out).into_iter().find(|check| text(check, "Check") == "disk").unwrap();
    assert!(status == 1 && text(&disk, "Result") == "WRONG", "{out}");
    fs::write(&bad, "nonsense = 1\n").unwrap();
    let (status, out, _) = call(&["doctor", "-o", "json", "--config", &shown(&bad), "--data", &shown(&data)]);
    assert!(status == 1 && text(&lines(&out)[0], "Result") == "WRONG" && out.contains("nonsense"), "{out}");
}

#[test]
fn the_demo_is_full_of_studies_with_a_conflict_and_a_refusal() {
    let folder = directory();
    let data = shown(&folder.path().join("data"));
    let mut demo = Command::new(cairn())
        .args(["demo", "--studies", "6", "--data", &data])
        .args(["--dicom", "127.0.0.1:0", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(folder.path().join("said")).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(folder.path().join("said")).unwrap();
    eventually("a demo that is filled", || said().contains("conflicts list").then_some(()));
    assert!(said().lines().count() < 10, "{}", said());
    let count = |arguments: &[&str]| {
        let (status, out, error) = call(&[arguments, &["--data", &data, "-o", "json"]].concat());
        assert_eq!(status, 0, "{arguments:?}: {error}");
        out.lines().count()
    };
    eventually("all studies found", || (count(&["query", "studies"]) == 6).then_some(()));
    eventually("the conflict listed", || (count(&["conflicts", "list", "--all"]) == 1).then_some(()));
    assert_eq!(count(&["quarantine", "list"]), 1);
    signal("TERM", demo.id());
    assert!(demo.wait().unwrap().success());
}

#[test]
fn metrics_are_those_of_the_documented_table() {
    let folder = directory();
    let files = synthetic_files(&folder.path().join("in"), 81, 1);
    let environment = vec![("CAIRN__LIFECYCLE__COMMITMENT__INSTANCES_WAIT", "6s".into())];
    let start = Start { environment, ..Start::default() };
    let archive = Archive::start_with(&folder.path().join("data"), start);
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    run("storescu", &["-aec", "CAIRN", &host, &port, &shown(&files[0])]);
    let response = crate::stow::stow(archive.http, &[&fs::read(&files[0]).unwrap(), b"no DICOM"]).unwrap();
    assert_eq!(response.status, 202);
    archive.settled();
    let study = cairn_synthetic::one_study(81, 0)[0].study_instance_uid.to_string();
    let level = ["-k", "QueryRetrieveLevel=STUDY", "-k", &format!("StudyInstanceUID={study}")];
    let got = shown(folder.path());
    run("getscu", &[&["-S", "-aec", "CAIRN", "-od", &got][..], &level, &[&host, &port]].concat());
    run("findscu", &[&["-S", "-aec", "CAIRN"][..], &level, &[&host, &port]].concat());
    let about = r#"{"00081199":{"Value":[{"00081150":{"Value":["1.2"]},"00081155":{"Value":["1.2.3"]}}]}}"#;
    assert_eq!(crate::commitment::post(&archive, "2.25.8101", about).status, 202);
    let exposed = eventually("a decision", || {
        let exposed = String::from_utf8(archive.get("/metrics", "*/*").body).unwrap();
        exposed.contains("cairn_commitment_instances_total").then_some(exposed)
    });
    let table = fs::read_to_string(repository().join("services/cairn/METRICS.md")).unwrap();
    let of_one_machine = table.split("## With stores of a cluster").next().unwrap();
    let rows = of_one_machine.lines().filter(|line| line.starts_with("| cairn_"));
    let documented: Vec<(&str, &str, &str)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            (cells[0], cells[1], cells[2])
        })
        .collect();
    let types: Vec<(&str, &str)> =
        exposed.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for (name, kind) in &types {
        let row = documented.iter().find(|(documented, ..)| documented == name);
        assert_eq!(row.map(|(_, kind, _)| *kind), Some(*kind), "{name} is not documented so");
        assert!(exposed.contains(&format!("# HELP {name} ")), "{name} has no help text");
    }
    // What only comparisons of versions, damage, requesters that are called, policies and a second store give, is not among this
    // traffic.
    let others = [
        "cairn_ingest_comparisons_total",
        "cairn_fixity_objects_damaged_total",
        "cairn_fixity_objects_repaired_total",
        "cairn_commitment_reports_total",
        "cairn_policy_erasures_requested_total",
        "cairn_policy_halted",
        "cairn_policy_moves_asked_total",
        "cairn_retrieval_recalls_asked_total",
        "cairn_tier_moved_bytes_total",
        "cairn_tier_moved_objects_total",
        "cairn_tier_reachable",
        "cairn_tier_used_bytes",
        "cairn_tier_waiting_studies",
    ];
    for (name, ..) in documented.iter().filter(|(name, ..)| !others.contains(name)) {
        assert!(types.iter().any(|(exposed, _)| exposed == name), "{name} is documented and not there");
    }
    let value = |name: &str| {
        let line = exposed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}")).parse::<f64>().unwrap()
    };
    assert!(value("cairn_log_bytes") > 0.0 && value("cairn_disk_sync_duration_seconds_count") > 0.0);
    let (objects, file) = (value("cairn_objects_bytes"), value("cairn_objects_file_bytes"));
    assert!(objects > 0.0 && file >= objects, "{objects} bytes of objects in {file} of files");
    for (name, kind, labels) in documented {
        let line = exposed.lines().find(|line| line.starts_with(&format!("{name}{{")) && kind != "histogram");
        for label in labels.split(',').map(str::trim).filter(|label| !label.is_empty() && line.is_some()) {
            assert!(line.unwrap().contains(&format!("{label}=\"")), "{name} has no label {label}");
        }
    }
    archive.stop();
}
