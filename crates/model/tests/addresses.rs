//! Addresses of specs and shapes: they depend on content alone, and stay the same from one version to the next.

use volley_model::{Bytes, CpuMilli, PoolSelector, Resources, Shape, Spec, TenantName};

fn spec() -> Spec {
    let mut spec = Spec::of_command("sh", &["-c", "true"]);
    spec.env.insert("A".to_owned(), "b".to_owned());
    spec.resources = Resources { cpu: CpuMilli(500), memory: Bytes(128 << 20), gpu: "H100|A100:2".parse().ok() };
    spec.require_labels.insert("zone".to_owned(), "a".to_owned());
    spec
}

/// What was stored under an address, or acknowledged under a client key, must be found by a newer version. When this
/// fails, a field was added that does not leave itself out at its default.
#[test]
fn addresses_do_not_change_with_versions() {
    assert_eq!(spec().hash().to_string(), "5601fefb9f025db8bffce2d161898f15");
    assert_eq!(Shape::of(&TenantName::default(), &spec()).hash().to_string(), "59fec2a721eba576");
}

#[test]
fn specs_that_differ_only_in_what_they_run_have_one_shape() {
    let shape = |spec: &Spec| Shape::of(&TenantName::default(), spec).hash();
    let mut other = spec();
    other.command = "python3".to_owned();
    other.priority = 7;
    assert_ne!(spec().hash(), other.hash());
    assert_eq!(shape(&spec()), shape(&other));
    other.pool = PoolSelector::Required("gpu".parse().unwrap());
    assert_ne!(shape(&spec()), shape(&other));
    let others = Shape::of(&"other".parse().unwrap(), &spec());
    assert_ne!(shape(&spec()), others.hash(), "tenants share no queue");
}
