//! Countries: two-letter codes from names, and the dialling prefixes that telephone numbers need.
//!
//! Lists the codes of ISO 3166-1 with their English names and the names that people of the country
//! and its neighbours write into spreadsheets. Three-letter codes are known too.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::normalize::fold;

/// One country.
#[derive(Debug, PartialEq, Eq)]
pub struct Country {
    /// ISO 3166-1 alpha-2.
    pub code: &'static str,
    code3: &'static str,
    names: &'static [&'static str],
    /// Dialling prefix without `+`; empty where we do not convert national numbers.
    pub dial: &'static str,
}

/// The country of a two-letter code, in any case.
pub fn by_code(code: &str) -> Option<&'static Country> {
    COUNTRIES
        .iter()
        .find(|country| country.code.eq_ignore_ascii_case(code.trim()))
}

/// The country that a code or a name means; blanks, case, marks and accents do not matter.
pub fn by_name(name: &str) -> Option<&'static Country> {
    static INDEX: LazyLock<HashMap<String, &'static Country>> = LazyLock::new(|| {
        let mut index = HashMap::new();
        for country in COUNTRIES {
            for name in country.names.iter().chain([&country.code, &country.code3]) {
                index.entry(fold(name)).or_insert(country);
            }
        }
        index
    });
    INDEX.get(&fold(name)).copied()
}

const fn country(
    code: &'static str,
    code3: &'static str,
    dial: &'static str,
    names: &'static [&'static str],
) -> Country {
    Country {
        code,
        code3,
        names,
        dial,
    }
}

#[rustfmt::skip]
static COUNTRIES: &[Country] = &[
    country("AD", "AND", "", &["Andorra"]),
    country("AE", "ARE", "971", &["United Arab Emirates", "UAE"]),
    country("AF", "AFG", "", &["Afghanistan"]),
    country("AG", "ATG", "", &["Antigua & Barbuda"]),
    country("AI", "AIA", "", &["Anguilla"]),
    country("AL", "ALB", "355", &["Albania"]),
    country("AM", "ARM", "374", &["Armenia"]),
    country("AO", "AGO", "", &["Angola"]),
    country("AQ", "ATA", "", &["Antarctica"]),
    country("AR", "ARG", "54", &["Argentina"]),
    country("AS", "ASM", "", &["Samoa (American)", "Samoa"]),
    country("AT", "AUT", "43", &["Austria", "Österreich", "Oesterreich"]),
    country("AU", "AUS", "61", &["Australia", "Australien"]),
    country("AW", "ABW", "", &["Aruba"]),
    country("AX", "ALA", "", &["Åland Islands"]),
    country("AZ", "AZE", "994", &["Azerbaijan"]),
    country("BA", "BIH", "387", &["Bosnia & Herzegovina"]),
    country("BB", "BRB", "", &["Barbados"]),
    country("BD", "BGD", "880", &["Bangladesh"]),
    country("BE", "BEL", "32", &["Belgium", "Belgien", "België", "Belgique"]),
    country("BF", "BFA", "", &["Burkina Faso"]),
    country("BG", "BGR", "359", &["Bulgaria", "България", "Bulgarien"]),
    country("BH", "BHR", "973", &["Bahrain"]),
    country("BI", "BDI", "", &["Burundi"]),
    country("BJ", "BEN", "", &["Benin"]),
    country("BL", "BLM", "", &["St Barthelemy"]),
    country("BM", "BMU", "", &["Bermuda"]),
    country("BN", "BRN", "", &["Brunei"]),
    country("BO", "BOL", "591", &["Bolivia"]),
    country("BQ", "BES", "", &["Caribbean NL"]),
    country("BR", "BRA", "55", &["Brazil", "Brasil", "Brasilien"]),
    country("BS", "BHS", "", &["Bahamas"]),
    country("BT", "BTN", "", &["Bhutan"]),
    country("BV", "BVT", "", &["Bouvet Island"]),
    country("BW", "BWA", "", &["Botswana"]),
    country("BY", "BLR", "375", &["Belarus"]),
    country("BZ", "BLZ", "", &["Belize"]),
    country("CA", "CAN", "1", &["Canada", "Kanada"]),
    country("CC", "CCK", "", &["Cocos (Keeling) Islands", "Cocos"]),
    country("CD", "COD", "", &["Congo (Dem. Rep.)", "Congo"]),
    country("CF", "CAF", "", &["Central African Rep."]),
    country("CG", "COG", "", &["Congo (Rep.)", "Congo"]),
    country("CH", "CHE", "41", &["Switzerland", "Schweiz", "Suisse", "Svizzera"]),
    country("CI", "CIV", "", &["Côte d'Ivoire", "Ivory Coast"]),
    country("CK", "COK", "", &["Cook Islands"]),
    country("CL", "CHL", "56", &["Chile"]),
    country("CM", "CMR", "", &["Cameroon"]),
    country("CN", "CHN", "86", &["China", "中国", "PR China", "People's Republic of China"]),
    country("CO", "COL", "57", &["Colombia"]),
    country("CR", "CRI", "506", &["Costa Rica"]),
    country("CU", "CUB", "", &["Cuba"]),
    country("CV", "CPV", "", &["Cape Verde", "Cabo Verde"]),
    country("CW", "CUW", "", &["Curaçao"]),
    country("CX", "CXR", "", &["Christmas Island"]),
    country("CY", "CYP", "357", &["Cyprus"]),
    country("CZ", "CZE", "420", &["Czech Republic", "Czechia", "Tschechien", "Česko"]),
    country("DE", "DEU", "49", &["Germany", "Deutschland", "Allemagne", "BRD"]),
    country("DJ", "DJI", "", &["Djibouti"]),
    country("DK", "DNK", "45", &["Denmark", "Danmark", "Dänemark"]),
    country("DM", "DMA", "", &["Dominica"]),
    country("DO", "DOM", "", &["Dominican Republic"]),
    country("DZ", "DZA", "213", &["Algeria"]),
    country("EC", "ECU", "593", &["Ecuador"]),
    country("EE", "EST", "372", &["Estonia"]),
    country("EG", "EGY", "20", &["Egypt"]),
    country("EH", "ESH", "", &["Western Sahara"]),
    country("ER", "ERI", "", &["Eritrea"]),
    country("ES", "ESP", "34", &["Spain", "España", "Spanien"]),
    country("ET", "ETH", "", &["Ethiopia"]),
    country("FI", "FIN", "358", &["Finland", "Suomi", "Finnland"]),
    country("FJ", "FJI", "", &["Fiji"]),
    country("FK", "FLK", "", &["Falkland Islands"]),
    country("FM", "FSM", "", &["Micronesia"]),
    country("FO", "FRO", "", &["Faroe Islands"]),
    country("FR", "FRA", "33", &["France", "Frankreich", "République française"]),
    country("GA", "GAB", "", &["Gabon"]),
    country("GB", "GBR", "44", &[
        "Britain (UK)", "Britain", "UK", "U.K.", "United Kingdom", "Great Britain", "England",
        "Scotland", "Wales", "Northern Ireland", "Vereinigtes Königreich", "Großbritannien",
    ]),
    country("GD", "GRD", "", &["Grenada"]),
    country("GE", "GEO", "995", &["Georgia"]),
    country("GF", "GUF", "", &["French Guiana"]),
    country("GG", "GGY", "", &["Guernsey"]),
    country("GH", "GHA", "233", &["Ghana"]),
    country("GI", "GIB", "", &["Gibraltar"]),
    country("GL", "GRL", "", &["Greenland"]),
    country("GM", "GMB", "", &["Gambia"]),
    country("GN", "GIN", "", &["Guinea"]),
    country("GP", "GLP", "", &["Guadeloupe"]),
    country("GQ", "GNQ", "", &["Equatorial Guinea"]),
    country("GR", "GRC", "30", &["Greece", "Hellas", "Griechenland"]),
    country("GS", "SGS", "", &["South Georgia & the South Sandwich Islands"]),
    country("GT", "GTM", "", &["Guatemala"]),
    country("GU", "GUM", "", &["Guam"]),
    country("GW", "GNB", "", &["Guinea-Bissau"]),
    country("GY", "GUY", "", &["Guyana"]),
    country("HK", "HKG", "852", &["Hong Kong", "Hong Kong SAR"]),
    country("HM", "HMD", "", &["Heard Island & McDonald Islands"]),
    country("HN", "HND", "", &["Honduras"]),
    country("HR", "HRV", "385", &["Croatia", "Hrvatska", "Kroatien"]),
    country("HT", "HTI", "", &["Haiti"]),
    country("HU", "HUN", "36", &["Hungary", "Magyarország", "Ungarn"]),
    country("ID", "IDN", "62", &["Indonesia"]),
    country("IE", "IRL", "353", &["Ireland", "Éire", "Irland", "Republic of Ireland"]),
    country("IL", "ISR", "972", &["Israel", "ישראל"]),
    country("IM", "IMN", "", &["Isle of Man"]),
    country("IN", "IND", "91", &["India", "Indien", "Bharat"]),
    country("IO", "IOT", "", &["British Indian Ocean Territory"]),
    country("IQ", "IRQ", "", &["Iraq"]),
    country("IR", "IRN", "", &["Iran"]),
    country("IS", "ISL", "354", &["Iceland"]),
    country("IT", "ITA", "39", &["Italy", "Italia", "Italien"]),
    country("JE", "JEY", "", &["Jersey"]),
    country("JM", "JAM", "", &["Jamaica"]),
    country("JO", "JOR", "962", &["Jordan"]),
    country("JP", "JPN", "81", &["Japan", "日本", "Nippon"]),
    country("KE", "KEN", "254", &["Kenya"]),
    country("KG", "KGZ", "", &["Kyrgyzstan"]),
    country("KH", "KHM", "", &["Cambodia"]),
    country("KI", "KIR", "", &["Kiribati"]),
    country("KM", "COM", "", &["Comoros"]),
    country("KN", "KNA", "", &["St Kitts & Nevis"]),
    country("KP", "PRK", "", &["Korea (North)", "Korea", "North Korea"]),
    country("KR", "KOR", "82", &[
        "Korea (South)", "Korea", "South Korea", "Republic of Korea", "한국",
    ]),
    country("KW", "KWT", "965", &["Kuwait"]),
    country("KY", "CYM", "", &["Cayman Islands"]),
    country("KZ", "KAZ", "7", &["Kazakhstan"]),
    country("LA", "LAO", "", &["Laos"]),
    country("LB", "LBN", "961", &["Lebanon"]),
    country("LC", "LCA", "", &["St Lucia"]),
    country("LI", "LIE", "423", &["Liechtenstein", "Fürstentum Liechtenstein"]),
    country("LK", "LKA", "94", &["Sri Lanka"]),
    country("LR", "LBR", "", &["Liberia"]),
    country("LS", "LSO", "", &["Lesotho"]),
    country("LT", "LTU", "370", &["Lithuania"]),
    country("LU", "LUX", "352", &["Luxembourg", "Luxemburg"]),
    country("LV", "LVA", "371", &["Latvia"]),
    country("LY", "LBY", "", &["Libya"]),
    country("MA", "MAR", "212", &["Morocco"]),
    country("MC", "MCO", "377", &["Monaco"]),
    country("MD", "MDA", "373", &["Moldova"]),
    country("ME", "MNE", "382", &["Montenegro"]),
    country("MF", "MAF", "", &["St Martin (French)", "St Martin"]),
    country("MG", "MDG", "", &["Madagascar"]),
    country("MH", "MHL", "", &["Marshall Islands"]),
    country("MK", "MKD", "389", &["North Macedonia", "Macedonia"]),
    country("ML", "MLI", "", &["Mali"]),
    country("MM", "MMR", "", &["Myanmar (Burma)", "Myanmar", "Burma"]),
    country("MN", "MNG", "", &["Mongolia"]),
    country("MO", "MAC", "", &["Macau"]),
    country("MP", "MNP", "", &["Northern Mariana Islands"]),
    country("MQ", "MTQ", "", &["Martinique"]),
    country("MR", "MRT", "", &["Mauritania"]),
    country("MS", "MSR", "", &["Montserrat"]),
    country("MT", "MLT", "356", &["Malta"]),
    country("MU", "MUS", "", &["Mauritius"]),
    country("MV", "MDV", "", &["Maldives"]),
    country("MW", "MWI", "", &["Malawi"]),
    country("MX", "MEX", "52", &["Mexico", "México", "Mexiko"]),
    country("MY", "MYS", "60", &["Malaysia"]),
    country("MZ", "MOZ", "", &["Mozambique"]),
    country("NA", "NAM", "", &["Namibia"]),
    country("NC", "NCL", "", &["New Caledonia"]),
    country("NE", "NER", "", &["Niger"]),
    country("NF", "NFK", "", &["Norfolk Island"]),
    country("NG", "NGA", "234", &["Nigeria"]),
    country("NI", "NIC", "", &["Nicaragua"]),
    country("NL", "NLD", "31", &[
        "Netherlands", "Holland", "The Netherlands", "Nederland", "Niederlande",
    ]),
    country("NO", "NOR", "47", &["Norway", "Norge", "Norwegen"]),
    country("NP", "NPL", "977", &["Nepal"]),
    country("NR", "NRU", "", &["Nauru"]),
    country("NU", "NIU", "", &["Niue"]),
    country("NZ", "NZL", "64", &["New Zealand"]),
    country("OM", "OMN", "968", &["Oman"]),
    country("PA", "PAN", "507", &["Panama"]),
    country("PE", "PER", "51", &["Peru"]),
    country("PF", "PYF", "", &["French Polynesia"]),
    country("PG", "PNG", "", &["Papua New Guinea"]),
    country("PH", "PHL", "63", &["Philippines"]),
    country("PK", "PAK", "92", &["Pakistan"]),
    country("PL", "POL", "48", &["Poland", "Polska", "Polen"]),
    country("PM", "SPM", "", &["St Pierre & Miquelon"]),
    country("PN", "PCN", "", &["Pitcairn"]),
    country("PR", "PRI", "", &["Puerto Rico"]),
    country("PS", "PSE", "", &["Palestine"]),
    country("PT", "PRT", "351", &["Portugal"]),
    country("PW", "PLW", "", &["Palau"]),
    country("PY", "PRY", "595", &["Paraguay"]),
    country("QA", "QAT", "974", &["Qatar"]),
    country("RE", "REU", "", &["Réunion"]),
    country("RO", "ROU", "40", &["Romania", "România", "Rumänien"]),
    country("RS", "SRB", "381", &["Serbia"]),
    country("RU", "RUS", "7", &["Russia", "Russian Federation", "Россия"]),
    country("RW", "RWA", "", &["Rwanda"]),
    country("SA", "SAU", "966", &["Saudi Arabia"]),
    country("SB", "SLB", "", &["Solomon Islands"]),
    country("SC", "SYC", "", &["Seychelles"]),
    country("SD", "SDN", "", &["Sudan"]),
    country("SE", "SWE", "46", &["Sweden", "Sverige", "Schweden"]),
    country("SG", "SGP", "65", &["Singapore", "Singapur"]),
    country("SH", "SHN", "", &["St Helena"]),
    country("SI", "SVN", "386", &["Slovenia", "Slovenija", "Slowenien"]),
    country("SJ", "SJM", "", &["Svalbard & Jan Mayen"]),
    country("SK", "SVK", "421", &["Slovakia", "Slovensko", "Slowakei"]),
    country("SL", "SLE", "", &["Sierra Leone"]),
    country("SM", "SMR", "", &["San Marino"]),
    country("SN", "SEN", "", &["Senegal"]),
    country("SO", "SOM", "", &["Somalia"]),
    country("SR", "SUR", "", &["Suriname"]),
    country("SS", "SSD", "", &["South Sudan"]),
    country("ST", "STP", "", &["Sao Tome & Principe"]),
    country("SV", "SLV", "", &["El Salvador"]),
    country("SX", "SXM", "", &["St Maarten (Dutch)", "St Maarten"]),
    country("SY", "SYR", "", &["Syria"]),
    country("SZ", "SWZ", "", &["Eswatini (Swaziland)", "Eswatini"]),
    country("TC", "TCA", "", &["Turks & Caicos Is"]),
    country("TD", "TCD", "", &["Chad"]),
    country("TF", "ATF", "", &["French S. Terr."]),
    country("TG", "TGO", "", &["Togo"]),
    country("TH", "THA", "66", &["Thailand"]),
    country("TJ", "TJK", "", &["Tajikistan"]),
    country("TK", "TKL", "", &["Tokelau"]),
    country("TL", "TLS", "", &["East Timor"]),
    country("TM", "TKM", "", &["Turkmenistan"]),
    country("TN", "TUN", "216", &["Tunisia"]),
    country("TO", "TON", "", &["Tonga"]),
    country("TR", "TUR", "90", &["Turkey", "Türkiye", "Türkei"]),
    country("TT", "TTO", "", &["Trinidad & Tobago"]),
    country("TV", "TUV", "", &["Tuvalu"]),
    country("TW", "TWN", "886", &["Taiwan"]),
    country("TZ", "TZA", "", &["Tanzania"]),
    country("UA", "UKR", "380", &["Ukraine", "Україна"]),
    country("UG", "UGA", "", &["Uganda"]),
    country("UM", "UMI", "", &["US minor outlying islands"]),
    country("US", "USA", "1", &[
        "United States", "USA", "U.S.A.", "U.S.", "United States of America", "America",
        "Vereinigte Staaten", "Estados Unidos", "États-Unis",
    ]),
    country("UY", "URY", "598", &["Uruguay"]),
    country("UZ", "UZB", "", &["Uzbekistan"]),
    country("VA", "VAT", "", &["Vatican City", "Vatican", "Holy See"]),
    country("VC", "VCT", "", &["St Vincent"]),
    country("VE", "VEN", "58", &["Venezuela"]),
    country("VG", "VGB", "", &["Virgin Islands (UK)", "Virgin Islands"]),
    country("VI", "VIR", "", &["Virgin Islands (US)", "Virgin Islands"]),
    country("VN", "VNM", "84", &["Vietnam", "Viet Nam"]),
    country("VU", "VUT", "", &["Vanuatu"]),
    country("WF", "WLF", "", &["Wallis & Futuna"]),
    country("WS", "WSM", "", &["Samoa (western)", "Samoa"]),
    country("YE", "YEM", "", &["Yemen"]),
    country("YT", "MYT", "", &["Mayotte"]),
    country("ZA", "ZAF", "27", &["South Africa", "RSA", "Südafrika"]),
    country("ZM", "ZMB", "", &["Zambia"]),
    country("ZW", "ZWE", "", &["Zimbabwe"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_codes_and_spellings_find_their_country() {
        for (name, code) in [
            ("DE", "DE"),
            ("de", "DE"),
            ("DEU", "DE"),
            ("Germany", "DE"),
            ("deutschland", "DE"),
            ("U.S.A.", "US"),
            ("usa", "US"),
            ("United  States", "US"),
            ("UK", "GB"),
            ("Österreich", "AT"),
            ("osterreich", "AT"),
            ("España", "ES"),
            ("the netherlands", "NL"),
            ("日本", "JP"),
            ("Côte d'Ivoire", "CI"),
            ("South Korea", "KR"),
        ] {
            assert_eq!(
                by_name(name).map(|country| country.code),
                Some(code),
                "{name}"
            );
        }
        assert_eq!(by_name("Atlantis"), None);
        assert_eq!(by_name(""), None);
    }

    #[test]
    fn no_code_stands_twice() {
        let mut codes: Vec<_> = COUNTRIES.iter().map(|country| country.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), COUNTRIES.len());
    }
}
