//! Generates the stubs. STATEHOUSE_PROTO is Statehouse's folder proto/.
use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=STATEHOUSE_PROTO");
    let proto = PathBuf::from(std::env::var("STATEHOUSE_PROTO").expect("STATEHOUSE_PROTO names the folder proto/"));
    let mut files = vec![proto.join("grpc/health/v1/health.proto")];
    for entry in proto.join("statehouse/v1").read_dir()? {
        files.push(entry?.path());
    }
    tonic_prost_build::configure().build_server(false).compile_protos(&files, &[proto])
}
