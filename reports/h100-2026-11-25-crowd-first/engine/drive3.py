import os
from rllm.backends.llama import lib as _lib
from rllm.engine import rhythm
if os.environ.get('RHYTHM')=='before': rhythm.CROWD=0
"""Engine alone, shared prefix of 2000 + 128, F16, 32 slots: what each step of the first waves takes."""
import sys, time, random
from rllm.backends.llama.engine import LlamaBackend
from rllm.backends.options import LlamaOptions
from rllm.engine.scheduler import Scheduler
from rllm.engine.engine import Engine
from rllm.engine.port import CopyPrefix, Truncate, Plan
from rllm.engine.types import *
path,mode=sys.argv[1],sys.argv[2]
b=LlamaBackend(path,LlamaOptions(slots=32,ctx_per_slot=2304)); i=b.info
print(mode,i.device,i.kv_unified,i.batch_size,"copy_s",b._memory._stream_copy_s,"copy_cells",i.copy_cells,flush=True)
s=Scheduler(b.info,b.vocabulary)
e=Engine(s,b,time.monotonic); rng=random.Random(1)
pre=tuple(rng.randrange(100,48000) for _ in range(2000)); n=0
def add(shared=True):
    global n
    body=tuple(rng.randrange(100,48000) for _ in range(128))
    e.submit(EngineRequest(id=str(n),prompt=(pre if shared else ())+body,max_tokens=128,ignore_eos=True,sampling=SamplingParams(temperature=0.0)),time.monotonic()); n+=1
ops=[0]; ex=b.execute
def execute(plan):
    ops[0]=sum(isinstance(o,CopyPrefix) for o in plan.ops); return ex(plan)
b.execute=execute
def drain(total,label,verbose):
    done=0; t0=time.monotonic(); born={}; first={}; left=total
    for _ in range(32): born[str(n)]=time.monotonic(); add(); left-=1
    k=0; dec=0; dt=0
    while e.has_work:
        t=time.perf_counter(); o=e.step(); w=time.perf_counter()-t; r=o.record; k+=1
        for ev in o.events:
            if ev.tokens and ev.request_id not in first: first[ev.request_id]=time.monotonic()-born[ev.request_id]
            if ev.finish and left>0: born[str(n)]=time.monotonic(); add(); left-=1
        if r and r.prefill_tokens:
            if verbose: print(f"  {1e3*(time.monotonic()-t0):7.0f} ms: [{dec} decode steps {1e3*dt:.0f} ms] prefill {r.prefill_tokens} copies {ops[0]} wall {1e3*w:.1f} plan {1e3*r.plan_s:.2f} exec {1e3*r.execute_s:.1f} sample {1e3*r.sample_s:.2f} hits {r.cached_tokens}",flush=True)
            dec=0; dt=0
        else: dec+=1; dt+=w
    v=sorted(first.values()); print(label,f"{total*128/(time.monotonic()-t0):.0f} tok/s TTFT p50 {1e3*v[len(v)//2]:.0f} p95 {1e3*v[int(len(v)*.95)]:.0f} max {1e3*v[-1]:.0f}",flush=True)
born={}
e.submit(EngineRequest(id="w",prompt=pre+(5,6),max_tokens=2,ignore_eos=True,sampling=SamplingParams(temperature=0.0)),time.monotonic())
while e.has_work: e.step()
drain(32,"wave 0",True)
drain(96,"three waves",True)
drain(96,"three waves",False)
b.execute=ex
# what a copy of a stream costs, alone
from time import perf_counter as pc
c=b._ctx
from rllm.engine.port import Chunk
for k in (0,1,2,4,8):
    for q in range(32): c.truncate(q, 2000 if q<1 else 0)
    L=c.length(0)
    t=pc()
    for d in range(1,k+1): c.copy_prefix(0,d,L)
    t1=pc(); b._batch.clear(); b._batch.add(0,[7],L,output=True); c.decode(b._batch); c.synchronize()
    print("copies",k,"length",L,f"api {1e3*(t1-t):.2f} ms decode {1e3*(pc()-t1):.2f} ms",flush=True)
