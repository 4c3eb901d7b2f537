"""The words and facts that the starter tasks are made of: common English words, and countries with their capitals."""

REGULAR_NOUNS = """
address airport album anchor angle animal ankle answer apple apron arch arm army arrow artist aunt axe baby badge bag baker ball
banana band bank barn basin basket bat beach beard bed bee bell belt bench berry bike bill bird blanket boat body bone book boot
bottle bowl box boy branch brick bridge brother brush bucket bus bush butterfly button cable cage cake camera camp candle canoe cap
car card carpet carrot castle cat cave chain chair cherry chin church circus city class clock cloud coach coat coin comb cook copy
cork country cousin cow crab crash crayon cross crow crown cup curtain daisy day desk diary dish doctor dog doll door dove dragon
dress drum duck duty eagle ear egg elbow engine enemy eye face factory fairy family farm farmer fence ferry field finger flag floor
flower fly fork fox frog game garden gate ghost girl glass glove goal grape guest guitar hall hammer hand hat hedge hill hobby hole
hook horse hour house island jacket jar jelly jewel joke judge jug key king kite kitten ladder lady lake lamp lamb lawyer leg lemon
lens letter library light lily lion lip lock lunch machine map mask match memory minute mirror monkey month moon mountain nail name
needle nest net night nose nurse ocean office orange oven owl page painter pan parrot party patch peach pear pen pencil penny pig
pillow pilot pirate plane plate pocket pony poppy prize puppy queen quilt rabbit radio rain rat ribbon ring river road robot rocket
roof room rope rose ruby sailor school sea seat shadow ship shirt shoe shop sister skirt sky snake sock song spider sponge spoon
spy star statue stick stone storm story stove street student suitcase sun switch table tail tax teacher tent tiger torch towel tower
toy train tray tree truck tunnel turtle uncle valley van vase village violin voice volcano wall watch wave week wheel window wing
winter witch word year zebra
""".split()

IRREGULAR_NOUNS = {
    "child": "children",
    "calf": "calves",
    "elf": "elves",
    "foot": "feet",
    "goose": "geese",
    "half": "halves",
    "hero": "heroes",
    "knife": "knives",
    "leaf": "leaves",
    "life": "lives",
    "loaf": "loaves",
    "man": "men",
    "mouse": "mice",
    "potato": "potatoes",
    "shelf": "shelves",
    "thief": "thieves",
    "tomato": "tomatoes",
    "tooth": "teeth",
    "volcano": "volcanoes",
    "wife": "wives",
    "wolf": "wolves",
    "woman": "women",
}

REGULAR_VERBS = """
add admire agree allow answer apply argue arrive ask attack bake bark belong blame boil borrow bounce brush bury call camp care carry
chase cheat check chew claim clap clean close collect compare complain cook copy correct cough count cover crash cry dance deliver
deny describe destroy drag drop dry dust earn empty enjoy enter escape explain fail fetch fill finish fix float fold follow fry gather
glue grab greet guess hammer hang hate heal help hop hope hug hunt hurry improve invite iron jog join joke judge jump kick kiss knit
knock land laugh learn lick like list listen live lock look love manage march marry match measure melt mend mix mop move nail need
nod note notice obey offer open order own pack paint park pass pat paste peel phone pick plan plant play point polish pour practise
pray prefer press promise pull pump punish push question race rain reach refuse relax remember repair repeat reply rescue rest return
rob roll rub rush sail save scare scratch scream search serve share shave shop shout sigh skip slip smell smile sneeze sniff snore sort
spell spill stare start stay step stir stop study suggest supply surprise talk tap taste tease test thank tie tip touch trace trade
trap travel trick trip trust try tug turn type unpack use visit wait walk wander want warn wash waste watch water wave whisper whistle
wink wipe wish wonder work worry wrap yawn yell
""".split()

IRREGULAR_VERBS = {
    "become": "became",
    "begin": "began",
    "bite": "bit",
    "blow": "blew",
    "break": "broke",
    "bring": "brought",
    "build": "built",
    "buy": "bought",
    "catch": "caught",
    "choose": "chose",
    "come": "came",
    "dig": "dug",
    "draw": "drew",
    "drink": "drank",
    "drive": "drove",
    "eat": "ate",
    "fall": "fell",
    "feed": "fed",
    "feel": "felt",
    "fight": "fought",
    "find": "found",
    "fly": "flew",
    "forget": "forgot",
    "freeze": "froze",
    "get": "got",
    "give": "gave",
    "go": "went",
    "grow": "grew",
    "hang": "hung",
    "hear": "heard",
    "hide": "hid",
    "hold": "held",
    "keep": "kept",
    "know": "knew",
    "leave": "left",
    "lend": "lent",
    "lose": "lost",
    "make": "made",
    "meet": "met",
    "pay": "paid",
    "ride": "rode",
    "ring": "rang",
    "run": "ran",
    "say": "said",
    "see": "saw",
    "sell": "sold",
    "send": "sent",
    "shake": "shook",
    "sing": "sang",
    "sit": "sat",
    "sleep": "slept",
    "speak": "spoke",
    "spend": "spent",
    "stand": "stood",
    "steal": "stole",
    "swim": "swam",
    "take": "took",
    "teach": "taught",
    "tell": "told",
    "think": "thought",
    "throw": "threw",
    "wake": "woke",
    "wear": "wore",
    "win": "won",
    "write": "wrote",
}

# Verbs whose last consonant doubles before -ed and -ing; of one syllable all with one vowel and one consonant do, bar w, x and y.
DOUBLING_VERBS = frozenset("begin forget prefer".split())

ANTONYMS = [
    pair.split("/")
    for pair in """
above/below absent/present active/passive add/subtract admit/deny after/before agree/disagree alive/dead all/none always/never
ancient/modern arrive/depart asleep/awake attack/defend bad/good beautiful/ugly begin/end better/worse big/small birth/death
bitter/sweet black/white blunt/sharp bold/timid boring/exciting bottom/top bright/dim broad/narrow build/destroy buy/sell calm/stormy
careful/careless cheap/expensive clean/dirty clever/stupid close/open cold/hot come/go cool/warm correct/wrong courage/fear
cruel/kind cry/laugh dark/light dawn/dusk day/night deep/shallow difficult/easy divide/multiply down/up dry/wet dull/shiny
early/late east/west empty/full enemy/friend enter/exit even/odd expand/shrink external/internal fail/succeed false/true far/near
fast/slow fat/thin female/male few/many find/lose finish/start first/last float/sink foolish/wise forget/remember forward/backward
freeze/melt frequent/rare front/back future/past generous/selfish gentle/rough give/take guilty/innocent happy/sad hard/soft
harmful/harmless hate/love healthy/sick heaven/hell help/hinder hero/coward high/low hire/fire honest/dishonest
horizontal/vertical huge/tiny humble/proud import/export include/exclude increase/decrease inferior/superior inside/outside
join/separate junior/senior king/queen land/sea large/little lead/follow left/right legal/illegal less/more lock/unlock
long/short loose/tight loud/quiet lucky/unlucky major/minor master/servant maximum/minimum mercy/cruelty natural/artificial
neat/messy new/old noisy/silent north/south obey/disobey often/seldom on/off optimist/pessimist patient/impatient
peace/war permanent/temporary plural/singular polite/rude poor/rich positive/negative possible/impossible powerful/weak
private/public problem/solution profit/loss pull/push question/answer raise/lower reward/punishment rise/fall
safe/dangerous same/different save/spend strong/feeble student/teacher summer/winter tame/wild
tired/rested together/apart tragedy/comedy under/over victory/defeat visible/invisible voluntary/compulsory
win/surrender with/without young/elderly
""".split()
]

CAPITALS = {
    country.strip(): capital.strip()
    for country, capital in (
        line.split("/")
        for line in """
Afghanistan/Kabul;Albania/Tirana;Algeria/Algiers;Andorra/Andorra la Vella;Angola/Luanda;Argentina/Buenos Aires;Armenia/Yerevan;
Australia/Canberra;Austria/Vienna;Azerbaijan/Baku;Bahrain/Manama;Bangladesh/Dhaka;Barbados/Bridgetown;Belarus/Minsk;Belgium/Brussels;
Belize/Belmopan;Bhutan/Thimphu;Bosnia and Herzegovina/Sarajevo;Botswana/Gaborone;Brazil/Brasilia;Bulgaria/Sofia;
Burkina Faso/Ouagadougou;Cambodia/Phnom Penh;Cameroon/Yaounde;Canada/Ottawa;Cape Verde/Praia;Chad/N'Djamena;Chile/Santiago;
China/Beijing;Colombia/Bogota;Comoros/Moroni;Costa Rica/San Jose;Croatia/Zagreb;Cuba/Havana;Cyprus/Nicosia;
Czech Republic/Prague;Denmark/Copenhagen;Djibouti/Djibouti;Dominica/Roseau;Dominican Republic/Santo Domingo;Ecuador/Quito;Egypt/Cairo;
El Salvador/San Salvador;Equatorial Guinea/Malabo;Eritrea/Asmara;Estonia/Tallinn;Ethiopia/Addis Ababa;Fiji/Suva;Finland/Helsinki;
France/Paris;Gabon/Libreville;Gambia/Banjul;Georgia/Tbilisi;Germany/Berlin;Ghana/Accra;Greece/Athens;Grenada/St. George's;
Guatemala/Guatemala City;Guinea/Conakry;Guinea-Bissau/Bissau;Guyana/Georgetown;Haiti/Port-au-Prince;Honduras/Tegucigalpa;
Hungary/Budapest;Iceland/Reykjavik;India/New Delhi;Indonesia/Jakarta;Iran/Tehran;Iraq/Baghdad;Ireland/Dublin;Italy/Rome;
Jamaica/Kingston;Japan/Tokyo;Jordan/Amman;Kenya/Nairobi;Kuwait/Kuwait City;Kyrgyzstan/Bishkek;Laos/Vientiane;Latvia/Riga;
Lebanon/Beirut;Lesotho/Maseru;Liberia/Monrovia;Libya/Tripoli;Liechtenstein/Vaduz;Lithuania/Vilnius;Luxembourg/Luxembourg;
Madagascar/Antananarivo;Malawi/Lilongwe;Malaysia/Kuala Lumpur;Maldives/Male;Mali/Bamako;Malta/Valletta;Mauritania/Nouakchott;
Mauritius/Port Louis;Mexico/Mexico City;Moldova/Chisinau;Monaco/Monaco;Mongolia/Ulaanbaatar;Montenegro/Podgorica;Morocco/Rabat;
Mozambique/Maputo;Myanmar/Naypyidaw;Namibia/Windhoek;Nepal/Kathmandu;Netherlands/Amsterdam;New Zealand/Wellington;Nicaragua/Managua;
Niger/Niamey;Nigeria/Abuja;North Korea/Pyongyang;North Macedonia/Skopje;Norway/Oslo;Oman/Muscat;Pakistan/Islamabad;
Panama/Panama City;Papua New Guinea/Port Moresby;Paraguay/Asuncion;Peru/Lima;Philippines/Manila;Poland/Warsaw;Portugal/Lisbon;
Qatar/Doha;Romania/Bucharest;Russia/Moscow;Rwanda/Kigali;Samoa/Apia;San Marino/San Marino;Saudi Arabia/Riyadh;Senegal/Dakar;
Serbia/Belgrade;Sierra Leone/Freetown;Singapore/Singapore;Slovakia/Bratislava;Slovenia/Ljubljana;Solomon Islands/Honiara;
Somalia/Mogadishu;South Korea/Seoul;South Sudan/Juba;Spain/Madrid;Sudan/Khartoum;Suriname/Paramaribo;Sweden/Stockholm;
Switzerland/Bern;Syria/Damascus;Taiwan/Taipei;Tajikistan/Dushanbe;Thailand/Bangkok;Togo/Lome;Tonga/Nuku'alofa;
Trinidad and Tobago/Port of Spain;Tunisia/Tunis;Turkey/Ankara;Turkmenistan/Ashgabat;Uganda/Kampala;Ukraine/Kyiv;
United Arab Emirates/Abu Dhabi;United Kingdom/London;United States/Washington;Uruguay/Montevideo;Uzbekistan/Tashkent;
Vanuatu/Port Vila;Venezuela/Caracas;Vietnam/Hanoi;Yemen/Sanaa;Zambia/Lusaka;Zimbabwe/Harare
""".replace("\n", "").split(";")
    )
}
