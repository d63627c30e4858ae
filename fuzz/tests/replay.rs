//! The corpora, regressions among them, through their targets: without libFuzzer, with any toolchain.

use std::{fs, path::Path};

#[test]
fn all_inputs_of_the_corpora_hold() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, run) in fuzz::TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            // Shown only if the next line fails.
            println!("{}", path.display());
            run(&data);
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus of {name} is empty");
        // None at all is an input, too.
        run(&[]);
    }
    let directories = fs::read_dir(corpus).unwrap().count();
    assert_eq!(directories, fuzz::TARGETS.len(), "one for each target");
}
