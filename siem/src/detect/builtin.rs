macro_rules! files {
    ($($name:literal)*) => {
        /// The rules that this house comes with: the name of each file and what stands in it.
        pub const BUILTIN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../infra/siem/sigma/", $name)))),*];
    };
}

files! { "breakout.yml" "data.yml" "decoys.yml" "doors.yml" "enumeration.yml" "house.yml" "lateral.yml" }
