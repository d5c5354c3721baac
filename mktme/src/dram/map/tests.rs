use super::super::tests::spec;
use super::*;
use proptest::prelude::*;
use sim_core::prng::Prng;

prop_compose! {
    fn shapes()(
        channels in 0u32..5, ranks in 0u32..3, groups in 0u32..4, banks in 0u32..3, lines in 1u32..9,
        rows in 0u32..19,
    ) -> (u8, Organisation) {
        (1 << channels, Organisation {
            ranks: 1 << ranks,
            bank_groups: 1 << groups,
            banks_per_group: 1 << banks,
            rows: 1 << rows,
            columns: 16 << lines,
        })
    }
}

/// A bijection by construction: address bits dealt out at random, then functions XORed into one another.
fn random_functions(channels: u8, shape: &Organisation, seed: u64) -> MapFunctions {
    let mut rng = Prng::new(seed);
    let mut functions = MapFunctions::default();
    let widths = widths(channels, shape);
    let given: u32 = widths.iter().sum();
    let mut free: Vec<u32> = (FIRST_BIT..FIRST_BIT + given).collect();
    for (list, width) in functions.0.iter_mut().zip(widths) {
        for _ in 0..width {
            let n = free.remove(rng.below(free.len() as u64) as usize);
            list.push(bit(n));
        }
    }
    // The bits above, which are the row's, may be XORed in as well.
    let mut all: Vec<u64> = functions.0.concat();
    all.extend((FIRST_BIT + given..END_BIT).map(bit));
    for _ in 0..rng.below(200) {
        let (to, from) = (rng.below(given.into()) as usize, rng.below(all.len() as u64) as usize);
        if to != from {
            all[to] ^= all[from];
        }
    }
    let mut all = all.into_iter();
    for list in &mut functions.0 {
        list.iter_mut().for_each(|f| *f = all.next().unwrap());
    }
    functions
}

fn map(text: &str, channels: u8, shape: &Organisation) -> Result<AddressMap, SpecError> {
    let spec = DramSpec { map: text.to_owned(), channels, ..spec() };
    AddressMap::with_organisation(&spec, shape)
}

/// A place bit by bit: the slow and obvious way.
fn by_parity(map: &AddressMap, line: Line) -> Place {
    let field = |field| {
        let rows = map.functions().matrix();
        let own = rows.iter().filter(|(f, ..)| *f == field);
        own.fold(0u64, |n, (_, i, mask)| n | u64::from((line.0 & mask).count_ones() % 2) << i)
    };
    Place {
        channel: field(Field::Channel) as u8,
        subchannel: field(Field::Subchannel) as u8,
        rank: field(Field::Rank) as u8,
        bank_group: field(Field::BankGroup) as u8,
        bank: field(Field::Bank) as u8,
        row: field(Field::Row),
        column: field(Field::Column) as u16,
    }
}

fn check_line(map: &AddressMap, channels: u8, shape: &Organisation, line: Line) {
    let place = map.decode(line);
    assert_eq!(map.encode(&place), line, "{place:?}");
    assert_eq!(place, by_parity(map, line));
    assert_eq!(map.channels().channel_of(line), place.channel);
    assert!(place.channel < channels && place.subchannel < 2);
    assert!(place.rank < shape.ranks && place.bank_group < shape.bank_groups);
    assert!(place.bank < shape.banks_per_group);
    assert!(u32::from(place.column) < shape.lines_per_row());
}

proptest! {
    #[test]
    fn every_line_has_its_own_place_in_every_preset(
        (channels, shape) in shapes(), preset in 0..PRESETS.len(),
        lines in prop::collection::vec(0u64..1 << LINE_BITS, 20),
    ) {
        let map = map(PRESETS[preset].name, channels, &shape).unwrap();
        for line in lines {
            check_line(&map, channels, &shape, Line(line));
        }
    }

    #[test]
    fn every_line_has_its_own_place_in_every_legal_map_and_its_text_reads_back(
        (channels, shape) in shapes(), seed: u64,
        lines in prop::collection::vec(0u64..1 << LINE_BITS, 20),
    ) {
        let functions = random_functions(channels, &shape, seed);
        let text = functions.to_string();
        prop_assert_eq!(text.parse(), Ok(functions.clone()), "{}", text);
        let map = map(&text, channels, &shape).unwrap();
        prop_assert_eq!(map.functions(), &functions);
        for line in lines {
            check_line(&map, channels, &shape, Line(line));
        }
    }

    #[test]
    fn every_place_has_its_own_line(
        (channels, shape) in shapes(), seed: u64, row in 0u64..1 << 20, random: u64,
    ) {
        let functions = random_functions(channels, &shape, seed);
        let map = AddressMap::try_from(functions).unwrap();
        let place = Place {
            channel: random as u8 & (channels - 1),
            subchannel: (random >> 8) as u8 & 1,
            rank: (random >> 16) as u8 & (shape.ranks - 1),
            bank_group: (random >> 24) as u8 & (shape.bank_groups - 1),
            bank: (random >> 32) as u8 & (shape.banks_per_group - 1),
            row,
            column: (random >> 40) as u16 & (shape.lines_per_row() - 1) as u16,
        };
        prop_assert_eq!(map.decode(map.encode(&place)), place);
    }

    #[test]
    fn a_map_in_which_functions_depend_on_one_another_is_refused_and_they_are_named(
        (channels, shape) in shapes(), seed: u64, victims: [prop::sample::Index; 3],
    ) {
        let mut functions = random_functions(channels, &shape, seed);
        let mut places: Vec<_> = Field::ALL
            .into_iter()
            .flat_map(|f| (0..functions.of(f).len()).map(move |i| (f, i)))
            .collect();
        // One function becomes the XOR of one or two others.
        let (field, i) = places.remove(victims[0].index(places.len()));
        let others = [victims[1], victims[2]].map(|v| places[v.index(places.len())]);
        let mut names = vec![format!("{field}[{i}]")];
        let mut sum = 0;
        for (n, (f, j)) in others.into_iter().enumerate() {
            if n == 0 || others[0] != others[1] {
                sum ^= functions.of(f)[j];
                names.push(format!("{f}[{j}]"));
            }
        }
        functions.0[field as usize][i] = sum;
        let Err(MapError::Dependent(found)) = AddressMap::try_from(functions) else {
            panic!("accepted")
        };
        let mut found: Vec<_> = found.split(" ^ ").map(str::to_owned).collect();
        found.sort_unstable();
        names.sort_unstable();
        prop_assert_eq!(found, names);
    }

    #[test]
    fn any_64_bit_line_number_decodes_without_a_panic((channels, shape) in shapes(), line: u64) {
        for preset in &PRESETS {
            let map = map(preset.name, channels, &shape).unwrap();
            let place = map.decode(Line(line));
            prop_assert!(place.rank < shape.ranks && u32::from(place.column) < shape.lines_per_row());
        }
    }

    #[test]
    fn no_text_panics_and_what_is_accepted_reads_back(text in "[a-z_=,;^ 0-9-]{0,60}") {
        if let Ok(functions) = text.parse::<MapFunctions>() {
            prop_assert_eq!(functions.to_string().parse(), Ok(functions));
        }
    }
}

#[test]
fn a_map_survives_being_written_and_read_and_a_broken_one_is_not_read() {
    let map = AddressMap::new(&spec()).unwrap();
    let bytes = postcard::to_allocvec(&map).unwrap();
    assert!(bytes.len() < 2000, "the tables are not written: {}", bytes.len());
    assert_eq!(postcard::from_bytes::<AddressMap>(&bytes).unwrap(), map);
    let mut broken = map.functions().clone();
    broken.0[0][1] = broken.0[0][0];
    let bytes = postcard::to_allocvec(&broken).unwrap();
    assert!(postcard::from_bytes::<AddressMap>(&bytes).is_err());
}

#[test]
fn a_function_of_bits_in_a_row_is_not_written_as_a_range_of_functions() {
    let mut functions = MapFunctions::default();
    functions.0[0] = vec![0b11 << 7, 0b111 << 9, 0b1111_1100 << 10, 0b1011_1011 << 8];
    assert_eq!(functions.to_string(), "channel=7^8,9^10^11,12^13-17,8^9^11-13^15");
    assert_eq!(functions.to_string().parse(), Ok(functions));
}

#[test]
fn functions_that_no_organisation_has_room_for_are_refused_without_one() {
    let list = |bits: std::ops::Range<u32>| bits.map(bit).collect::<Vec<_>>();
    let mut wide = MapFunctions::default();
    wide.0[Field::Channel as usize] = list(6..11);
    let mut narrow = MapFunctions::default();
    narrow.0[Field::Subchannel as usize] = list(6..7);
    let mut long = wide.clone();
    long.0[Field::Row as usize] = (11..52).chain(6..7).map(bit).collect();
    for (functions, message) in [
        (wide, "found functions for 5 bits of channel, expected 4: no organisation has more"),
        (
            narrow,
            "found functions for 0 bits of column, expected 2: at least two bits are not the row's",
        ),
        (long, "found functions for 47 bits, expected at most 46"),
    ] {
        let error = AddressMap::try_from(functions).unwrap_err().to_string();
        assert_eq!(error, format!("dram.map: {message}"));
    }
}

#[test]
fn a_page_uses_all_sixteen_subchannels_evenly() {
    let map = AddressMap::new(&spec()).unwrap();
    for page in 0..50u64 {
        let mut count = [0u32; 16];
        for line in 0..64 {
            let place = map.decode(Line(page * 64 + line));
            count[usize::from(place.channel * 2 + place.subchannel)] += 1;
        }
        assert_eq!(count, [4; 16], "page {page}");
    }
}

/// Banks of all channels that 256 lines, each so many apart, fall into.
fn banks(map: &AddressMap, shift: u32) -> usize {
    let mut banks: Vec<_> = (0..256u64)
        .map(|i| {
            let p = map.decode(Line(i << shift));
            (p.channel, p.subchannel, p.rank, p.bank_group, p.bank)
        })
        .collect();
    banks.sort_unstable();
    banks.dedup();
    banks.len()
}

#[test]
fn with_the_hashed_map_lines_a_power_of_two_apart_do_not_all_meet_in_one_bank() {
    let map = AddressMap::new(&spec()).unwrap();
    for shift in 0..28 {
        assert!(banks(&map, shift) >= 16, "stride 2^{shift}: {} banks", banks(&map, shift));
    }
}

/// What each preset does to strides, as numbers: the named ones of the literature hash little or nothing.
#[test]
fn the_number_of_banks_that_256_lines_at_each_stride_reach_is_known() {
    let shown: Vec<String> = PRESETS
        .iter()
        .map(|p| {
            let map = AddressMap::new(&DramSpec { map: p.name.to_owned(), ..spec() }).unwrap();
            let banks: Vec<_> = (0..28).step_by(3).map(|s| banks(&map, s).to_string()).collect();
            format!("{:>10}: {}", p.name, banks.join(" "))
        })
        .collect();
    expect_test::expect![[r#"
            hashed: 128 64 32 64 256 64 128 128 64 64
        RoBaRaCoCh: 16 2 8 64 32 4 1 1 1 1
        ChRaBaRoCo: 1 1 1 1 1 1 8 64 256 64
         MOP4CLXOR: 64 64 64 16 16 2 1 1 1 1"#]]
    .assert_eq(&shown.join("\n"));
}

#[test]
fn every_preset_has_its_own_name_and_a_source_and_lays_out_every_field_once() {
    let mut names: Vec<_> = PRESETS.iter().map(|p| p.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PRESETS.len());
    for preset in &PRESETS {
        assert!(!preset.cite.is_empty());
        for field in Field::ALL {
            let all = preset.layout.iter().filter(|p| **p == Part::All(field)).count();
            assert_eq!(all, 1, "{} {field}", preset.name);
        }
        let map = AddressMap::new(&DramSpec { map: preset.name.to_owned(), ..spec() }).unwrap();
        assert_eq!(map.functions().count(), 4 + 1 + 2 + 4 + 6 + 16, "{}", preset.name);
    }
}

/// Ramulator's mappers in its own words: fields sliced off the low end one after the other.
#[test]
fn ramulators_presets_slice_the_address_as_its_mappers_do() {
    let take = |rest: &mut u64, bits: u32| {
        let low = *rest & ((1 << bits) - 1);
        *rest >>= bits;
        low
    };
    let map = |name: &str| AddressMap::new(&DramSpec { map: name.to_owned(), ..spec() }).unwrap();
    let [straight, by_channel, mop] = ["RoBaRaCoCh", "ChRaBaRoCo", "MOP4CLXOR"].map(map);
    let mut rng = Prng::new(5);
    for _ in 0..1000 {
        let line = rng.below(1 << 33);
        let mut rest = line;
        let [sub, ch, co, ra, bg, ba] = [1, 3, 7, 1, 3, 2].map(|n| take(&mut rest, n));
        let p = straight.decode(Line(line));
        assert_eq!([p.subchannel, p.channel, p.rank], [sub as u8, ch as u8, ra as u8]);
        assert_eq!((p.column, p.row), (co as u16, rest));
        assert_eq!([p.bank_group, p.bank], [bg as u8, ba as u8]);

        let mut rest = line;
        let [co, ro, ba, bg, ra, sub, ch] = [7, 16, 2, 3, 1, 1, 3].map(|n| take(&mut rest, n));
        let p = by_channel.decode(Line(line));
        assert_eq!([p.subchannel, p.channel, p.rank], [sub as u8, ch as u8, ra as u8]);
        assert_eq!((p.column, p.row), (co as u16, ro));
        assert_eq!([p.bank_group, p.bank], [bg as u8, ba as u8]);

        let mut rest = line;
        let [sub, ch, low, ra, bg, ba, high] = [1, 3, 2, 1, 3, 2, 5].map(|n| take(&mut rest, n));
        let co = low | high << 2;
        let p = mop.decode(Line(line));
        assert_eq!([p.subchannel, p.channel], [sub as u8, ch as u8]);
        assert_eq!((p.column, p.row), (co as u16, rest));
        assert_eq!(u64::from(p.rank), ra ^ co & 1);
        assert_eq!(u64::from(p.bank_group), bg ^ co >> 1 & 7);
        assert_eq!(u64::from(p.bank), ba ^ co >> 4 & 3);
    }
}

/// The preset `hashed` in words: 256 bytes per channel; within the channel subchannel, bank group, column, bank, rank, row.
#[test]
fn the_hashed_map_is_the_assumed_one_of_the_sheet() {
    let take = |rest: &mut u64, bits: u32| {
        let low = *rest & ((1 << bits) - 1);
        *rest >>= bits;
        low
    };
    let map = AddressMap::new(&spec()).unwrap();
    let mut rng = Prng::new(6);
    for _ in 0..1000 {
        let line = rng.below(1 << LINE_BITS);
        let unit = line >> 2;
        let channel = (unit ^ unit >> 5 ^ unit >> 11 ^ unit >> 17) & 7;
        let mut rest = line >> 5 << 2 | line & 3;
        let low = take(&mut rest, 1);
        let subchannel = low ^ u64::from(rest.count_ones() & 1);
        let [group, column, bank, rank] = [3, 7, 2, 1].map(|n| take(&mut rest, n));
        let mut fold = (0..8).fold(0, |fold, k| fold ^ rest >> (6 * k));
        let [group_hash, bank_hash, rank_hash] = [3, 2, 1].map(|n| take(&mut fold, n));
        let place = Place {
            channel: channel as u8,
            subchannel: subchannel as u8,
            rank: (rank ^ rank_hash) as u8,
            bank_group: (group ^ group_hash) as u8,
            bank: (bank ^ bank_hash) as u8,
            row: rest,
            column: column as u16,
        };
        assert_eq!(map.decode(Line(line)), place);
    }
}

#[test]
fn a_map_that_is_none_is_refused_at_the_place_where_it_goes_wrong() {
    let shape = Organisation { ranks: 1, bank_groups: 2, banks_per_group: 2, rows: 4, columns: 32 };
    let good = "channel=8^13-15; subchannel=6^9; bank_group=7;bank = 10 ;column=9; row=11-13";
    assert!(map(good, 2, &shape).is_ok());
    let shown: Vec<String> = [
        "",
        "hash",
        "channel",
        "channel=",
        "channel=8,",
        "channel=8^",
        "channel=8^8",
        "channel=5",
        "channel=52",
        "channel=+8",
        "channel=8-",
        "channel=9-8",
        "channel=8-9-10",
        "channel=8=9",
        "channel=8; channel=9",
        "channel=8;",
        "channel=8; subchannel=6^9-12^10",
        "row=6-51,6-51",
        "channel=8,9; subchannel=6; bank_group=7; bank=10; column=11; row=12",
        "channel=8; bank_group=7; bank=10; column=11; row=12",
        "channel=8; subchannel=6; rank=9; bank_group=7; bank=10; column=11; row=12",
        "channel=8; subchannel=6; bank_group=7; bank=10; column=6; row=12",
        "channel=8; subchannel=6; bank_group=7; bank=10; column=11; row=12-14",
        "channel=8; subchannel=6; bank_group=7; bank=10; column=9; row=12-51,11,8",
    ]
    .into_iter()
    .map(|text| format!("{text:?}\n    {}", map(text, 2, &shape).unwrap_err()))
    .collect();
    expect_test::expect![[r#"
        ""
            dram.map: found nothing at character 1, expected hashed, RoBaRaCoCh, ChRaBaRoCo, MOP4CLXOR, or one of channel, subchannel, rank, bank_group, bank, column, row
        "hash"
            dram.map: found "hash" at character 1, expected hashed, RoBaRaCoCh, ChRaBaRoCo, MOP4CLXOR, or one of channel, subchannel, rank, bank_group, bank, column, row
        "channel"
            dram.map: found nothing at character 8, expected "=" and the functions of the field
        "channel="
            dram.map: found nothing at character 9, expected an address bit from 6 to 51
        "channel=8,"
            dram.map: found nothing at character 11, expected an address bit from 6 to 51
        "channel=8^"
            dram.map: found nothing at character 11, expected an address bit from 6 to 51
        "channel=8^8"
            dram.map: found "8" at character 11, expected bit 8 once in a function
        "channel=5"
            dram.map: found "5" at character 9, expected an address bit from 6 to 51
        "channel=52"
            dram.map: found "52" at character 9, expected an address bit from 6 to 51
        "channel=+8"
            dram.map: found "+8" at character 9, expected an address bit from 6 to 51
        "channel=8-"
            dram.map: found nothing at character 11, expected an address bit from 6 to 51
        "channel=9-8"
            dram.map: found "8" at character 11, expected a bit above 9
        "channel=8-9-10"
            dram.map: found "10" at character 13, expected two bits in a range
        "channel=8=9"
            dram.map: found "9" at character 11, expected one "=" per field
        "channel=8; channel=9"
            dram.map: found "channel" at character 12, expected each field once
        "channel=8;"
            dram.map: found nothing at character 11, expected hashed, RoBaRaCoCh, ChRaBaRoCo, MOP4CLXOR, or one of channel, subchannel, rank, bank_group, bank, column, row
        "channel=8; subchannel=6^9-12^10"
            dram.map: found "10" at character 30, expected bit 10 once in a function
        "row=6-51,6-51"
            dram.map: found "6-51" at character 10, expected at most 46 bits in a field
        "channel=8,9; subchannel=6; bank_group=7; bank=10; column=11; row=12"
            dram.map: found functions for 2 bits of channel, expected 1: dram.channels
        "channel=8; bank_group=7; bank=10; column=11; row=12"
            dram.map: found functions for 0 bits of subchannel, expected 1: a channel has two
        "channel=8; subchannel=6; rank=9; bank_group=7; bank=10; column=11; row=12"
            dram.map: found functions for 1 bits of rank, expected 0: dram.ranks
        "channel=8; subchannel=6; bank_group=7; bank=10; column=6; row=12"
            dram.map: found that row[0] ^ row[1] is 0 for every address, expected a bijection
        "channel=8; subchannel=6; bank_group=7; bank=10; column=11; row=12-14"
            dram.map: found that row[2] ^ row[3] is 0 for every address, expected a bijection
        "channel=8; subchannel=6; bank_group=7; bank=10; column=9; row=12-51,11,8"
            dram.map: found functions for 47 bits, expected at most 46"#]].assert_eq(&shown.join("\n"));
}

#[test]
fn the_page_shows_every_preset() {
    expect_test::expect![[r#"
        | Map | Field | Functions | Source |
        |---|---|---|---|
        | `hashed` | channel | 8^13^19^25, 9^14^20^26, 10^15^21^27 | timing.md §2.4 [A]: 256 B channel interleave, XOR over higher bits; distances assumed |
        | `hashed` | subchannel | 6^7^11-51 | timing.md §2.4 [A]: 256 B channel interleave, XOR over higher bits; distances assumed |
        | `hashed` | rank | 22^28^34^40^46 | timing.md §2.4 [A]: 256 B channel interleave, XOR over higher bits; distances assumed |
        | `hashed` | bank_group | 7^23^29^35^41^47, 11^24^30^36^42^48, 12^25^31^37^43^49 | timing.md §2.4 [A]: 256 B channel interleave, XOR over higher bits; distances assumed |
        | `hashed` | bank | 20^26^32^38^44^50, 21^27^33^39^45^51 | timing.md §2.4 [A]: 256 B channel interleave, XOR over higher bits; distances assumed |
        | `hashed` | column | 13-19 | timing.md §2.4 [A]: 256 B channel interleave, XOR over higher bits; distances assumed |
        | `hashed` | row | 23-38 | timing.md §2.4 [A]: 256 B channel interleave, XOR over higher bits; distances assumed |
        | `RoBaRaCoCh` | channel | 7-9 | timing.md §2.1 [V]: Ramulator |
        | `RoBaRaCoCh` | subchannel | 6 | timing.md §2.1 [V]: Ramulator |
        | `RoBaRaCoCh` | rank | 17 | timing.md §2.1 [V]: Ramulator |
        | `RoBaRaCoCh` | bank_group | 18-20 | timing.md §2.1 [V]: Ramulator |
        | `RoBaRaCoCh` | bank | 21-22 | timing.md §2.1 [V]: Ramulator |
        | `RoBaRaCoCh` | column | 10-16 | timing.md §2.1 [V]: Ramulator |
        | `RoBaRaCoCh` | row | 23-38 | timing.md §2.1 [V]: Ramulator |
        | `ChRaBaRoCo` | channel | 36-38 | timing.md §2.1 [V]: Ramulator |
        | `ChRaBaRoCo` | subchannel | 35 | timing.md §2.1 [V]: Ramulator |
        | `ChRaBaRoCo` | rank | 34 | timing.md §2.1 [V]: Ramulator |
        | `ChRaBaRoCo` | bank_group | 31-33 | timing.md §2.1 [V]: Ramulator |
        | `ChRaBaRoCo` | bank | 29-30 | timing.md §2.1 [V]: Ramulator |
        | `ChRaBaRoCo` | column | 6-12 | timing.md §2.1 [V]: Ramulator |
        | `ChRaBaRoCo` | row | 13-28 | timing.md §2.1 [V]: Ramulator |
        | `MOP4CLXOR` | channel | 7-9 | timing.md §2.1 [V]: Ramulator |
        | `MOP4CLXOR` | subchannel | 6 | timing.md §2.1 [V]: Ramulator |
        | `MOP4CLXOR` | rank | 10^12 | timing.md §2.1 [V]: Ramulator |
        | `MOP4CLXOR` | bank_group | 11^13, 14^18, 15^19 | timing.md §2.1 [V]: Ramulator |
        | `MOP4CLXOR` | bank | 16^20, 17^21 | timing.md §2.1 [V]: Ramulator |
        | `MOP4CLXOR` | column | 10-11, 18-22 | timing.md §2.1 [V]: Ramulator |
        | `MOP4CLXOR` | row | 23-38 | timing.md §2.1 [V]: Ramulator |
    "#]].assert_eq(&map_markdown());
}
