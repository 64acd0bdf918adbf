//! How the program is linked. Knows nothing of its code.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        // Each container has a keeper, which is this program. Linked to run at any address, every process of it would
        // fill a page of its own wherever a pointer stands in its tables: 0.8 MiB that nothing can share.
        println!("cargo::rustc-link-arg-bin=volley=-no-pie");
    }
}
