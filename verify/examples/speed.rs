use sim_core::{KeyId, platform::*, *};
use std::hash::{Hash, Hasher};
use std::time::Instant;
use verify::configurations::*;
use verify::reference::*;
fn main() {
    let s = small(IntegrityMode::Ci, true, 4);
    println!("{s:?}");
    let first = s.keyid.private(1).unwrap();
    let second = s.keyid.private(2).unwrap();
    let what = std::env::args().nth(1).unwrap_or_default();
    for (lines, len) in [(2u64, 20_000usize), (64, 100_000), (4096, 400_000)] {
        let shape = Shape { lines, keyids: vec![KeyId(0), first, second], stray: 20 };
        let program = random_program(s, &shape, 1, len);
        let mut h = rustc_hash::FxHasher::default();
        let mut m = with_keys(s, &shape.keyids);
        let mut traffic = 0;
        for (i, st) in program.iter().enumerate() {
            let out = m.step(st).unwrap();
            if what == "digest" && lines <= 64 {
                (format!("{:?} {:?} {:?}", out.seen, out.births, out.ucna)).hash(&mut h);
                for t in &out.traffic {
                    format!(
                        "{:?} {:?} {:?} {:?} {:?}",
                        t.at,
                        t.request,
                        t.rule,
                        t.before.state(),
                        t.after.state()
                    )
                    .hash(&mut h);
                }
                if i % 7 == 0 {
                    postcard::to_stdvec(&m).unwrap().hash(&mut h);
                }
            }
            traffic += out.traffic.len();
        }
        println!(
            "lines {lines} len {len} digest {:x} traffic {traffic} copies {}",
            h.finish(),
            m.state().caches.len()
        );
        let t = Instant::now();
        let mut n = 0u64;
        let mut reps = 0;
        while t.elapsed().as_millis() < 1000 {
            let mut m = with_keys(s, &shape.keyids);
            let mut o = StepOutcome::default();
            for st in &program {
                m.replay(st, &mut o).unwrap();
                n += o.traffic.len() as u64;
            }
            reps += 1;
        }
        let ns = t.elapsed().as_nanos() as u64 / (reps * program.len() as u64);
        println!("  {ns} ns/step  {n}");
    }
}
