//! What every manifest with a gate in it must hold, whatever rendered it: hardened containers, an end that is long enough, and a
//! configuration that is good where the volume puts it.

use std::path::Path;

use serde_json::Value;

use testkit::gate::{path_text, portcullis};
use testkit::pki::Authority;

use crate::tooling::{attempt, longest_end, write};

/// The oldest and the newest Kubernetes that the manifests are for.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// Fails unless every supported Kubernetes has every resource in this form. Resources of others' definitions are passed over.
#[track_caller]
pub(crate) fn are_accepted(manifests: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifests.yaml");
    std::fs::write(&path, manifests).unwrap();
    for version in VERSIONS {
        let (accepted, printed) =
            attempt("kubernetes-validate", &["--strict", "-k", version, path.to_str().unwrap()]);
        assert!(accepted, "Kubernetes {version}: {printed}");
    }
}

/// The resource of a kind with a name.
#[track_caller]
pub(crate) fn resource<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_it = |it: &&Value| it["kind"] == kind && it["metadata"]["name"] == name;
    all.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The containers of a workload, sidecars among them.
pub(crate) fn containers(workload: &Value) -> Vec<&Value> {
    let pod = &workload["spec"]["template"]["spec"];
    ["initContainers", "containers"].iter().filter_map(|list| pod[list].as_array()).flatten().collect()
}

/// The container that runs the gate.
pub(crate) fn gate(workload: &Value) -> &Value {
    containers(workload).into_iter().find(|container| container["name"] == "portcullis").unwrap()
}

/// Fails unless no container of the workload has more rights than it needs.
#[track_caller]
pub(crate) fn is_hardened(workload: &Value) {
    let of_pod = &workload["spec"]["template"]["spec"]["securityContext"];
    for container in containers(workload) {
        let own = &container["securityContext"];
        let value = |key: &str| if own[key].is_null() { &of_pod[key] } else { &own[key] };
        assert_eq!(value("runAsNonRoot"), true, "{container}");
        assert!(value("runAsUser").as_u64().is_some_and(|user| user > 0), "{container}");
        assert_eq!(value("seccompProfile")["type"], "RuntimeDefault", "{container}");
        assert_eq!(own["allowPrivilegeEscalation"], false, "{container}");
        assert_eq!(own["readOnlyRootFilesystem"], true, "{container}");
        assert_eq!(own["capabilities"]["drop"][0], "ALL", "{container}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
        assert!(container["resources"]["requests"]["cpu"].is_string(), "{container}");
    }
    assert_eq!(
        gate(workload)["securityContext"]["runAsUser"].as_u64().or(of_pod["runAsUser"].as_u64()),
        Some(65532)
    );
}

/// Fails unless the gate is asked whether it lives and whether it is ready, at the right paths of the right port.
#[track_caller]
pub(crate) fn is_probed(workload: &Value) {
    let gate = gate(workload);
    for (probe, path) in [("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")]
    {
        assert_eq!(gate[probe]["httpGet"]["path"], path, "{gate}");
        assert_eq!(gate[probe]["httpGet"]["port"], "telemetry", "{gate}");
    }
    let ports = gate["ports"].as_array().unwrap();
    let telemetry = ports.iter().find(|port| port["name"] == "telemetry").unwrap();
    assert_eq!(telemetry["containerPort"], 9464);
}

/// Fails unless the cluster waits longer for a pod than its containers may take: the preStop of the API, ten seconds for the API itself,
/// and the gate after it.
#[track_caller]
pub(crate) fn has_time_to_end(workload: &Value, configuration: &str) {
    let grace = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let others = containers(workload).into_iter().filter(|container| container["name"] != "portcullis");
    let others: u64 =
        others.map(|api| api["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0) + 10).sum();
    let needed = others + longest_end(configuration);
    assert!(grace > needed, "{grace} s, where {needed} s are needed");
}

/// Fails unless `portcullis check` finds the configuration good when it lies where the pod has it, beside what else is mounted there.
#[track_caller]
pub(crate) fn configuration_is_good(workload: &Value, configuration: &str) {
    let folder = tempfile::tempdir().unwrap();
    let volumes = workload["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let mounts = gate(workload)["volumeMounts"].as_array().unwrap();
    let mounted = mounts.iter().find(|mount| mount["mountPath"] == "/etc/portcullis").unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == mounted["name"]).unwrap();
    for source in volume["projected"]["sources"].as_array().unwrap() {
        for item in source["secret"]["items"].as_array().into_iter().flatten() {
            put(folder.path(), item["path"].as_str().unwrap());
        }
    }
    // The names of a cluster: outside of it, its issuer is not in the pod's own token.
    let outside = "kubernetes = true\nissuer = \"https://kubernetes.default.svc.cluster.local\"\nkubernetes_path = \"account\"";
    write(&folder.path().join("account/token"), "token");
    put(folder.path(), "account/ca.crt");
    let path = folder.path().join("portcullis.toml");
    write(&path, configuration.replace("kubernetes = true", outside));
    let checked = portcullis(&["check", "--config", path_text(&path)]);
    assert_eq!(checked.code, 0, "{}{configuration}", checked.err);
}

/// Puts a file of this name there: a certificate, its key, or a secret.
fn put(folder: &Path, name: &str) {
    let (authority, target) = (Authority::new(), folder.join(name));
    let server = authority.server(&["localhost"]);
    if name.ends_with("tls.crt") {
        write(&target, &server.chain);
        write(&target.with_extension("key"), &server.key);
    } else if name.ends_with(".crt") {
        write(&target, authority.certificate_pem());
    } else if !name.ends_with(".key") {
        write(&target, "a secret of thirty-two characters\n");
    }
}

/// The ports that a policy lets others reach, with whether it says from where.
pub(crate) fn open_ports(policy: &Value) -> Vec<(Value, bool)> {
    assert_eq!(policy["spec"]["policyTypes"][0], "Ingress");
    let rules = policy["spec"]["ingress"].as_array().unwrap().iter();
    let ports = rules.flat_map(|rule| {
        let limited = rule["from"].is_array();
        rule["ports"].as_array().unwrap().iter().map(move |port| (port["port"].clone(), limited))
    });
    ports.collect()
}
