"""as a pytest file, run from the repo"""
from tests.database.test_plans import *
from tests.database.test_plans import quiet, analyze, rolled_back, load, Rounds
async def test_dbg(both, connect):
    await quiet(both)
    c = await connect(both)
    await analyze(c)
    async with rolled_back(c):
        r = await Rounds.begin(c, both)
        await r.run()
    await load(both, 20000)
    await c.execute("LOAD 'auto_explain'; set auto_explain.log_min_duration=0; set auto_explain.log_nested_statements=on; set auto_explain.log_level=notice; set auto_explain.log_analyze=on; set auto_explain.log_timing=off; set client_min_messages=notice")
    out=[]
    c.add_log_listener(lambda _,m: out.append(m.message))
    async with rolled_back(c):
        r = await Rounds.begin(c, both)
        await r.run()
    await c.fetchval("select 1")
    import re
    seen=set()
    for m in out:
        if any(int(x)>=3000 for x in re.findall(r"(?:actual rows=|Removed by Filter: |Removed by Join Filter: )(\d+)", m)) and 'ai_generations' in m:
            k=m[:200].split('Query Text')[1][:80]
            if k in seen: continue
            seen.add(k); print('=====', m[:6000])
