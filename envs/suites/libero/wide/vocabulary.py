"""What people call LIBERO's things and places, and which things wide scenes have.

Nothing here imports a simulator. A place is the category of a thing, or that and the name of its region, such as
"wooden_cabinet top_region".
"""

from __future__ import annotations

NAMES: dict[str, tuple[str, ...]] = {
    "akita_black_bowl": ("black bowl", "bowl", "dark bowl"),
    "alphabet_soup": ("alphabet soup", "can of alphabet soup", "alphabet soup can"),
    "basket": ("basket",),
    "bbq_sauce": ("bbq sauce", "barbecue sauce", "bottle of bbq sauce"),
    "black_book": ("book", "black book"),
    "butter": ("butter", "box of butter", "pack of butter"),
    "chefmate_8_frypan": ("frying pan", "pan", "skillet"),
    "chocolate_pudding": ("chocolate pudding", "pudding", "box of chocolate pudding"),
    "cookies": ("cookie box", "cookies", "box of cookies"),
    "cream_cheese": ("cream cheese", "cream cheese box", "box of cream cheese"),
    "glazed_rim_porcelain_ramekin": ("ramekin", "porcelain ramekin"),
    "ketchup": ("ketchup", "ketchup bottle", "bottle of ketchup"),
    "macaroni_and_cheese": ("macaroni and cheese", "box of macaroni"),
    "milk": ("milk", "milk carton", "carton of milk"),
    "moka_pot": ("moka pot", "coffee pot"),
    "orange_juice": ("orange juice", "orange juice carton", "carton of orange juice"),
    "plate": ("plate",),
    "popcorn": ("popcorn", "box of popcorn"),
    "porcelain_mug": ("white mug", "white cup"),
    "red_coffee_mug": ("red mug", "red cup", "red coffee mug"),
    "salad_dressing": ("salad dressing", "bottle of salad dressing", "dressing"),
    "tomato_sauce": ("tomato sauce", "can of tomato sauce", "tomato sauce can"),
    "white_bowl": ("white bowl", "bowl"),
    "white_yellow_mug": ("yellow and white mug", "white and yellow mug", "yellow and white cup"),
    "wine_bottle": ("wine bottle", "bottle of wine", "wine"),
    "wooden_tray": ("tray", "wooden tray"),
    "yellow_book": ("book", "yellow book"),
}
"""{category of a movable thing: what it is called}. A name that two categories in a scene share is not used in it."""

COLOURED = frozenset(category for category, names in NAMES.items() if any("white" in n or "black" in n for n in names))
COLOURED |= {"red_coffee_mug", "yellow_book"}
"""Things that are named by their colour."""

LABELLED = frozenset(
    """alphabet_soup bbq_sauce butter chocolate_pudding cookies cream_cheese ketchup macaroni_and_cheese milk
    orange_juice popcorn salad_dressing tomato_sauce""".split()
)
"""Things that only their labels tell from others of the same shape."""

_TOP, _IN = ("on", "onto", "on top of"), ("in", "into", "inside")
_CABINETS = ("wooden_cabinet", "white_cabinet")

PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plate": (_TOP, ("plate",)),
    "akita_black_bowl": (_IN, ("black bowl", "bowl")),
    "white_bowl": (_IN, ("white bowl", "bowl")),
    "basket contain_region": (_IN, ("basket",)),
    "wooden_tray contain_region": (("in", "on", "into"), ("tray", "wooden tray")),
    "flat_stove cook_region": (_TOP, ("stove", "burner")),
    "wine_rack top_region": (("on", "onto"), ("rack", "wine rack")),
    "microwave heating_region": (_IN, ("microwave", "microwave oven")),
    "desk_caddy back_contain_region": (_IN, ("back compartment of the caddy", "caddy's back compartment")),
    "desk_caddy front_contain_region": (_IN, ("front compartment of the caddy", "caddy's front compartment")),
    "desk_caddy left_contain_region": (_IN, ("left compartment of the caddy", "caddy's left compartment")),
    "desk_caddy right_contain_region": (_IN, ("right compartment of the caddy", "caddy's right compartment")),
    **{f"{cabinet} top_side": (_TOP, ("cabinet", "set of drawers")) for cabinet in _CABINETS},
    **{
        f"{cabinet} {level}_region": (
            _IN,
            (f"{level} drawer", f"{level} drawer of the cabinet", f"cabinet's {level} drawer"),
        )
        for cabinet in _CABINETS
        for level in ("top", "middle", "bottom")
    },
}
"""{place: (prepositions, what it is called)}."""

REGIONS: dict[str, tuple[str, ...]] = {
    "basket": ("contain_region",),
    "desk_caddy": ("back_contain_region", "front_contain_region", "left_contain_region", "right_contain_region"),
    "flat_stove": ("cook_region",),
    "microwave": ("heating_region",),
    "white_cabinet": ("top_side", "top_region", "middle_region", "bottom_region"),
    "wine_rack": ("top_region",),
    "wooden_cabinet": ("top_side", "top_region", "middle_region", "bottom_region"),
    "wooden_tray": ("contain_region",),
}
"""{category: its regions that a goal can name}."""

RECEPTACLES = ("basket", "plate", "wooden_tray", "akita_black_bowl", "white_bowl")
"""Movable things that others can be put in or on."""
STAYING = ("basket", "wooden_tray")
"""Movable things that are too wide for the hand."""
NOT_CARRIED = (*STAYING, "plate")
"""Movable things that no episode asks to carry: a plate is too low for the hand to get under its rim."""
EXCHANGED = tuple(category for category in NAMES if category not in STAYING)
"""Things that stand in for others."""
TWIN_FIXTURES = {"wooden_cabinet": "white_cabinet", "white_cabinet": "wooden_cabinet"}
"""Fixtures that stand in for each other."""
