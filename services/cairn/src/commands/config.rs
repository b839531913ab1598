//! `cairn config`: check, show, schema.

use super::{Failure, load};
use crate::cli::{ConfigAction, ConfigArgs};
use crate::config::Config;

pub fn run(args: ConfigArgs) -> Result<(), Failure> {
    match args.action {
        ConfigAction::Check { source } => {
            load(&source)?;
            println!("the configuration can be used");
            Ok(())
        }
        ConfigAction::Show { source, origin } => {
            let loaded = load(&source)?;
            print!("{}", toml::to_string(&loaded.config).map_err(Failure::failed)?);
            if origin {
                println!();
                for (path, origin) in &loaded.origins {
                    println!("# {path}: {origin}");
                }
            }
            Ok(())
        }
        ConfigAction::Schema => {
            let schema = schemars::schema_for!(Config);
            println!("{}", serde_json::to_string_pretty(&schema).map_err(Failure::failed)?);
            Ok(())
        }
    }
}
