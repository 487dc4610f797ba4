"""The control layer's live shells: the gate on asyncio, engine metrics over HTTP, and the control loop.

`gate` and `controlling` need the standard library only; `scrape` needs the extra `live` (aiohttp and
prometheus-client). The laws, the gates and their orders are those of `concur`, unchanged.
"""
