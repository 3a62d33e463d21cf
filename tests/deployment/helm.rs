//! `config/helm/portcullis`: the chart, its values, and the rules that it carries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use testkit::documents::{block, commands};

use crate::pods::{self, are_accepted, open_ports, resource};
use crate::tooling::{attempt, file, says, text, write, yaml};

fn chart() -> String {
    file("config/helm/portcullis").to_str().unwrap().to_owned()
}

/// What the chart renders with these options, and whether it does.
fn template(options: &[&str]) -> (bool, String) {
    attempt("helm", &[&["template", "shop", &chart(), "--kube-version", "1.30"], options].concat())
}

#[track_caller]
fn rendered(options: &[&str]) -> String {
    let (succeeded, printed) = template(options);
    assert!(succeeded, "{printed}");
    printed
}

/// The values that docs/deployment.md prints, in a file.
fn printed_values() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.yaml");
    write(&path, block("docs/deployment.md", "prometheusRule:"));
    (folder, path)
}

#[test]
fn the_chart_renders_with_its_defaults_into_what_every_supported_kubernetes_accepts() {
    says("helm", &["lint", "--strict", "--quiet", &chart()]);
    let printed = rendered(&[]);
    are_accepted(&printed);
    let all = yaml(&printed);
    let kinds: Vec<&str> = all.iter().filter_map(|it| it["kind"].as_str()).collect();
    assert!(!kinds.contains(&"ServiceMonitor") && !kinds.contains(&"PrometheusRule"), "{kinds:?}");
}

#[test]
fn the_gates_of_the_chart_are_hardened_probed_and_have_time_to_end() {
    let all = yaml(&rendered(&[]));
    let gates = resource(&all, "Deployment", "shop-portcullis");
    let configuration =
        resource(&all, "ConfigMap", "shop-portcullis")["data"]["portcullis.toml"].as_str().unwrap();
    pods::is_hardened(gates);
    pods::is_probed(gates);
    pods::has_time_to_end(gates, configuration);
    pods::configuration_is_good(gates, configuration);
    assert_eq!(gates["spec"]["template"]["spec"]["automountServiceAccountToken"], false);
}

/// Runs docs/deployment.md: prometheusRule:
/// Runs docs/deployment.md: helm install gate
#[test]
fn the_values_and_commands_of_the_docs_install_the_chart() {
    let (folder, values) = printed_values();
    let printed = rendered(&["--values", values.to_str().unwrap()]);
    are_accepted(&printed);
    let all = yaml(&printed);
    let upstream = resource(&all, "NetworkPolicy", "shop-portcullis-upstream");
    assert_eq!(open_ports(upstream), [(json!(3000), true)]);
    assert_eq!(upstream["spec"]["podSelector"]["matchLabels"], json!({"app": "deals-api"}));
    assert_eq!(
        open_ports(resource(&all, "NetworkPolicy", "shop-portcullis")),
        [(json!("https"), false), (json!("telemetry"), true)]
    );
    let configuration =
        resource(&all, "ConfigMap", "shop-portcullis")["data"]["portcullis.toml"].as_str().unwrap();
    pods::configuration_is_good(resource(&all, "Deployment", "shop-portcullis"), configuration);
    let [lint, install] = &commands(&block("docs/deployment.md", "helm install gate"))[..] else {
        panic!("two commands")
    };
    says_with_helm(&lint.replace("gate.yaml", values.to_str().unwrap()));
    let notes = says_with_helm(&format!(
        "{} --dry-run=client",
        install.replace("gate.yaml", values.to_str().unwrap())
    ));
    assert!(notes.contains("The gate is gate-portcullis.deals.svc:443"), "{notes}");
    drop(folder);
}

/// Runs a printed command of helm in the repository.
#[track_caller]
fn says_with_helm(command: &str) -> String {
    let arguments: Vec<String> =
        command.split(' ').skip(1).map(|word| word.replace("config/helm/portcullis", &chart())).collect();
    says("helm", &arguments)
}

#[test]
fn values_that_make_no_sense_are_refused_with_what_is_wrong() {
    let bad = [
        (vec!["replica=3"], "additional properties 'replica' not allowed"),
        (vec!["replicas=0"], "minimum: got 0, want 1"),
        (vec!["service.port=70000"], "maximum: got 70,000, want 65,535"),
        (vec!["image.digest=latest"], "does not match pattern"),
        (vec!["service.type=Loadbalancer"], "value must be one of"),
        (vec!["config="], "minLength"),
        (vec!["replicas=2", "config=[state]"], "set state.store to \"redis\", or replicas to 1"),
    ];
    for (values, why) in bad {
        let options: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
        let (succeeded, printed) = template(&options);
        assert!(!succeeded && printed.to_lowercase().contains(&why.to_lowercase()), "{values:?}: {printed}");
    }
    rendered(&["--set", "replicas=1", "--set", "config=[state]"]);
    rendered(&["--set", "config=", "--set", "existingConfigMap=mine"]);
}

#[test]
fn the_schema_knows_every_value_that_the_chart_has() {
    let schema: Value = serde_json::from_str(&text("config/helm/portcullis/values.schema.json")).unwrap();
    let known: BTreeSet<&String> =
        schema["properties"].as_object().unwrap().keys().filter(|key| *key != "global").collect();
    let values = yaml(&text("config/helm/portcullis/values.yaml"));
    let listed: BTreeSet<&String> = values[0].as_object().unwrap().keys().collect();
    assert_eq!(known, listed);
}

#[test]
fn the_rules_of_the_chart_are_those_of_the_monitoring_folder() {
    let folder = |path: &str| -> BTreeSet<String> {
        let files = std::fs::read_dir(file(path)).unwrap();
        let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| {
                name.starts_with("portcullis-") && Path::new(name).extension().is_some_and(|it| it == "yaml")
            })
            .collect()
    };
    let (copies, originals) = (folder("config/helm/portcullis/files"), folder("config/monitoring"));
    assert_eq!(copies, originals, "copy config/monitoring/portcullis-*.yaml to config/helm/portcullis/files");
    let (_folder, values) = printed_values();
    let all = yaml(&rendered(&["--values", values.to_str().unwrap()]));
    for name in &copies {
        let (copy, original) = (
            text(&format!("config/helm/portcullis/files/{name}")),
            text(&format!("config/monitoring/{name}")),
        );
        assert_eq!(copy, original, "copy config/monitoring/{name} to config/helm/portcullis/files");
        let of_release = name.replace("portcullis-", "shop-portcullis-").replace(".yaml", "");
        assert_eq!(resource(&all, "PrometheusRule", &of_release)["spec"], yaml(&original)[0], "{name}");
    }
    let monitor = &resource(&all, "ServiceMonitor", "shop-portcullis")["spec"];
    let service = resource(&all, "Service", "shop-portcullis-telemetry");
    for (label, value) in monitor["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&service["metadata"]["labels"][label], value, "{label}");
    }
    assert_eq!(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
}
