"""Which pages of a TIFF file there are, which one is the slide at full size, and which ones are left unread."""

from __future__ import annotations

from typing import Any

from wsiseg.errors import SlideError
from wsiseg.geometry import Size
from wsiseg.slide import limits
from wsiseg.slide.level import whole_downsample
from wsiseg.slide.rawfile import RawFile


def list_pages(file: RawFile, tiff: Any) -> tuple[list[Any], list[str]]:
    """The top-level pages, up to the cap."""
    pages: list[Any] = []
    warnings: list[str] = []
    seen: set[int] = set()
    while len(pages) < limits.MAX_PAGES:
        try:
            page = tiff.pages[len(pages)]
        except IndexError:
            break
        except Exception as error:
            if not pages:
                raise
            warnings.append(f"pages after {len(pages)} cannot be read ({brief(error)})")
            break
        if page.offset in seen:
            warnings.append("its list of pages refers to itself")
            break
        seen.add(page.offset)
        pages.append(page)
    else:
        warnings.append(f"only the first {limits.MAX_PAGES} pages are looked at")
    if not pages:
        raise SlideError(file.path, "its TIFF structure has no pages")
    return pages, warnings


def unread_pages(tiff: Any, pages: list[Any], base: int, read: set[str]) -> list[str]:
    """A line about pages as large as the slide, or larger, that are not part of it; masks have a flag of their own."""
    page, out = pages[base], []
    # With metadata of its own, a file says which pages are channels; Leica's first picture is of the whole glass.
    if tiff.is_imagej or tiff.is_shaped or tiff.is_scn:
        return []
    others = [i for i, p in enumerate(pages) if i != base and f"page {i}" not in read]
    masks = [i for i in others if int(pages[i].subfiletype or 0) & 4]
    if masks:
        out.append(f"page {masks[0]} is a transparency mask; it is not used")
    wide, tall = int(page.imagewidth), int(page.imagelength)
    same = [
        i for i in others if (pages[i].imagewidth, pages[i].imagelength) == (wide, tall) and i not in masks
    ]
    larger = [i for i in others if int(pages[i].imagewidth) * int(pages[i].imagelength) > wide * tall]
    if same and page.samplesperpixel > 1:
        out.append(f"{len(same)} more pages of its size are not read, from page {same[0]} on")
    if larger:
        big = pages[larger[0]]
        out.append(f"page {larger[0]} is larger ({big.imagewidth} x {big.imagelength}); page {base} is read")
    return out


def base_page(file: RawFile, tiff: Any, pages: list[Any], warnings: list[str]) -> int:
    """The index of the page that is the slide at full size.

    The first, unless a larger tiled one follows a picture in strips, or the first is a reduction of a later one: it
    says so, or its sides are a whole fraction of the later one's (a pyramid stored smallest first).
    """

    def area(i: int) -> int:
        return int(pages[i].imagelength) * int(pages[i].imagewidth)

    first = pages[0]
    if int(first.subfiletype or 0) & 1 and not tiff.is_scn:
        whole = [i for i, p in enumerate(pages) if not int(p.subfiletype or 0) & 5 and area(i) > area(0)]
        if whole:
            largest = max(whole, key=lambda i: (area(i), -i))
            warnings.append(f"page {largest} is the slide; page 0 says that it is a reduced picture")
            return largest
    tiled = [i for i, p in enumerate(pages) if p.is_tiled and not int(p.subfiletype or 0) & 5]
    if tiled and (not first.is_tiled or tiff.is_scn):
        largest = max(tiled, key=lambda i: (area(i), -i))
        if area(largest) > area(0):
            if not tiff.is_scn:
                warnings.append(f"page {largest} is the slide; page 0 is a smaller picture")
            return largest
    if first.is_tiled and not (tiff.is_ome or tiff.is_imagej or tiff.is_shaped):
        alike = [i for i in tiled if _reduces(first, pages[i])]
        if alike:
            largest = max(alike, key=lambda i: (area(i), -i))
            warnings.append(f"page {largest} is the slide; page 0 is a lower resolution of it")
            return largest
    return 0


def _reduces(small: Any, large: Any) -> bool:
    """Whether a page's sides are those of another one divided by a whole number, both with pixels of one kind."""
    sizes = [Size(int(p.imagelength), int(p.imagewidth)) for p in (large, small)]
    if min(sizes[1].height, sizes[1].width) < 8:
        return False
    kinds = [(p.samplesperpixel, p.bitspersample, p.photometric) for p in (large, small)]
    return kinds[0] == kinds[1] and whole_downsample(*sizes) >= 2


def brief(error: Exception) -> str:
    """What an exception of a library says, as a part of one line."""
    return " ".join(str(error).split())[:80] or type(error).__name__


def forget_pages(pages: list[Any]) -> None:
    """Let go of what tifffile read: pages and file refer to each other, and the tables of 150,000 tiles take 10 MB."""
    for page in pages:
        getattr(page, "__dict__", {}).clear()
