use super::*;
use std::fs;
use toml::Value;

fn layers(file: Option<&str>, flags: &[(&[&str], Value)], environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("cairn.toml");
    if let Some(text) = file {
        fs::write(&path, text).expect("written");
    }
    let flag = |(path, value): &(&[&str], Value)| (path.iter().map(|key| (*key).to_owned()).collect(), value.clone());
    let layers = Layers {
        file: file.map(|_| path),
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags.iter().map(flag).collect(),
    };
    layers.load()
}

#[test]
fn the_defaults_bind_loopback_alone_and_read_back() {
    let config = layers(None, &[], &[]).expect("defaults").config;
    assert_eq!(config, Config::default());
    for listen in [config.dicom.listen, config.http.listen, config.grpc.listen] {
        assert!(listen.ip().is_loopback());
    }
    let text = toml::to_string(&config).expect("TOML");
    assert_eq!(layers(Some(&text), &[], &[]).expect("read back").config, config);
}

#[test]
fn later_layers_win_and_each_value_knows_its_origin() {
    let file = "[dicom]\nae_title = \"FILE\"\n[site]\nname = \"east\"\n[ae.CT1]\nissuer_of_patient_id = \"EAST\"\n";
    let title = Value::String("FLAG".into());
    let flags: [(&[&str], Value); 1] = [(&["dicom", "ae_title"], title)];
    let environment = [("CAIRN__DICOM__AE_TITLE", "ENV"), ("CAIRN__HTTP__LISTEN", "127.0.0.1:9999"), ("OTHER", "x")];
    let loaded = layers(Some(file), &flags, &environment).expect("loads");
    assert_eq!((loaded.config.dicom.ae_title.as_str(), loaded.config.site.name.as_str()), ("FLAG", "east"));
    assert_eq!(loaded.config.http.listen.port(), 9999);
    assert_eq!(loaded.origins["dicom.ae_title"], "command line");
    assert_eq!(loaded.origins["http.listen"], "environment CAIRN__HTTP__LISTEN");
    assert!(loaded.origins["site.name"].ends_with("cairn.toml"));
    assert!(!loaded.origins.contains_key("grpc.listen"));
    let profile = &loaded.config.ingest_config().profiles["CT1"];
    assert_eq!(profile.issuer_of_patient_id.as_deref(), Some("EAST"));
}

#[test]
fn an_unknown_key_is_refused_in_every_layer_and_named_with_its_line() {
    let error = layers(Some("[dicom]\nae_titel = \"X\"\n"), &[], &[]).expect_err("unknown").to_string();
    assert!(error.contains("ae_titel") && error.contains("line 2"), "{error}");
    let error = layers(None, &[], &[("CAIRN__DICOM__AE_TITEL", "X")]).expect_err("unknown").to_string();
    assert!(error.contains("CAIRN__DICOM__AE_TITEL"), "{error}");
    let flags: [(&[&str], Value); 1] = [(&["nothing"], Value::Integer(1))];
    assert!(layers(None, &flags, &[]).is_err());
}

#[test]
fn a_wider_bind_needs_an_ae_list_or_the_word_that_anyone_may() {
    let wide = "[dicom]\nlisten = \"0.0.0.0:11112\"\n";
    assert!(layers(Some(wide), &[], &[]).expect_err("refused").to_string().contains("accept_unknown_callers"));
    let listed = layers(Some(&format!("{wide}[ae.CT1]\n")), &[], &[]).expect("a list");
    assert_eq!(listed.config.dimse_policy().calling, cairn_dimse::negotiate::CallingAes::Known);
    let said = layers(Some(&format!("{wide}accept_unknown_callers = true\n")), &[], &[]).expect("said so");
    assert_eq!(said.config.dimse_policy().calling, cairn_dimse::negotiate::CallingAes::Any);
    assert!(layers(Some("[http]\nlisten = \"0.0.0.0:8080\"\n"), &[], &[]).is_err());
    assert!(layers(Some("[grpc]\nlisten = \"0.0.0.0:50051\"\n"), &[], &[]).is_err(), "plaintext stays on loopback");
}

#[test]
fn what_one_section_alone_cannot_tell_is_checked() {
    for wrong in [
        "[site]\nname = \"with space\"\n",
        "[dicom]\nae_title = \"LONGER THAN 16 CHARACTERS\"\n",
        "[ae.CT1]\naddress = \"nowhere\"\n",
        "[ae.CT1]\ntransfer_syntaxes = [\"JPEG\"]\n",
        "[data]\npartitions = 0\n",
    ] {
        assert!(layers(Some(wrong), &[], &[]).is_err(), "{wrong}");
    }
}

#[test]
fn destinations_are_read_as_the_command_line_gives_them() {
    let read = |text: &str| text.parse::<Destination>();
    let destination = read("VIEWER=10.0.0.7:11113").expect("valid");
    assert_eq!((destination.ae_title.as_str(), destination.address.as_str()), ("VIEWER", "10.0.0.7:11113"));
    assert!(read("V6=[::1]:104").is_ok());
    for wrong in ["VIEWER", "=1.2.3.4:1", "VIEWER=host", "VIEWER=:104", "VIEWER=host:99999"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn plaintext_between_processes_stays_on_loopback_unless_told_otherwise() {
    for (file, key) in [
        ("[grpc]\nlisten = \"0.0.0.0:50051\"\n", "grpc.listen"),
        ("[peers]\nindex = [\"127.0.0.1:1\", \"index.example:50051\"]\n", "peers.index"),
    ] {
        let error = layers(Some(file), &[], &[]).expect_err("plaintext").to_string();
        assert!(error.contains(key) && error.contains("[tls]"), "{error}");
        let told = [("CAIRN__GRPC__PLAINTEXT_BEYOND_LOOPBACK", "true")];
        layers(Some(file), &[], &told).expect("told");
        let tls = format!("{file}[tls]\ncertificate = \"a\"\nkey = \"b\"\nauthority = \"c\"\n");
        layers(Some(&tls), &[], &[]).expect("mutual TLS");
    }
}

#[test]
fn no_two_object_stores_are_in_one_place_of_a_bucket() {
    let mut config = Config::default();
    let refused = |config: &Config, key: &str| {
        let error = config.check_buckets().expect_err("one place under two names").to_string();
        assert!(error.contains(key), "{error}");
    };
    for s3 in [&mut config.s3, &mut config.tiers.s3, &mut config.copies.s3] {
        s3.bucket = "images".into();
    }
    config.check_buckets().expect("none of them is used");
    config.stores.objects = ObjectsKind::S3;
    config.check_buckets().expect("one of them is used");
    config.tiers.cold = ColdKind::S3;
    refused(&config, "tiers.s3");
    // The same S3 under another name.
    config.tiers.s3.endpoint = Some("https://another".into());
    refused(&config, "tiers.s3");
    config.tiers.s3.prefix = "cold/".into();
    config.check_buckets().expect("another prefix");
    config.copies.to = ColdKind::S3;
    refused(&config, "copies.s3");
    config.copies.s3.prefix = "cold/".into();
    refused(&config, "copies.s3");
    config.copies.s3.bucket = "copies".into();
    config.check_buckets().expect("another bucket");
}
