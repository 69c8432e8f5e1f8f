//! Every config in the documentation is one that `check` takes.

use std::path::{Path, PathBuf};

use super::output;

fn pages(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_config_block_of_the_docs_passes_check() {
    let mut found = vec![PathBuf::from("README.md")];
    pages(Path::new("docs"), &mut found);
    let dir = tempfile::tempdir().unwrap();
    let mut blocks = 0;
    for page in found {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            if !block.lines().any(|line| line.trim() == "version: 1") {
                continue;
            }
            blocks += 1;
            let file = dir.path().join("block.yaml");
            std::fs::write(&file, block).unwrap();
            let (code, _, stderr) = {
                let mut command =
                    super::outrigger(&["check", "--offline", "--deny-warnings", "-c", file.to_str().unwrap()]);
                let run =
                    command.env("OPENAI_API_KEY", "sk-test").env("ANTHROPIC_API_KEY", "sk-test").output().unwrap();
                (run.status.code().unwrap(), run.stdout, String::from_utf8(run.stderr).unwrap())
            };
            assert_eq!(code, 0, "{}:\n{block}\n{stderr}", page.display());
        }
    }
    assert!(blocks >= 4, "only {blocks} blocks found");
}

#[test]
fn the_example_configs_pass_check() {
    for file in ["config/outrigger.yaml", "config/minimal.yaml", "config/homelab.yaml"] {
        let (code, _, stderr) = output(&["check", "--offline", "-c", file]);
        assert_eq!(code, 0, "{file}: {stderr}");
    }
}
