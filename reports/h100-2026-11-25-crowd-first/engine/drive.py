import os
from rllm.backends.llama import lib as _lib
from rllm.engine import rhythm
if os.environ.get('RHYTHM')=='before': rhythm.CROWD=0
import faulthandler, sys, time, random, statistics as st
faulthandler.dump_traceback_later(45, exit=True)
from rllm.backends.llama import lib
from rllm.backends.llama.engine import LlamaBackend
from rllm.backends.options import LlamaOptions
from rllm.engine.scheduler import Scheduler
from rllm.engine.engine import Engine
from rllm.engine.port import Plan, Truncate
from rllm.engine.types import *
path,C,mode=sys.argv[1],[int(c) for c in sys.argv[2].split(",")],sys.argv[3]
temp=float(sys.argv[4]) if len(sys.argv)>4 else 0.0
PER=int(sys.argv[5]) if len(sys.argv)>5 else 4
UB=int(sys.argv[6]) if len(sys.argv)>6 else 512
b=LlamaBackend(path,LlamaOptions(slots=64,ctx_per_slot=1024,ubatch_size=UB)); print(b.info.device, b.info.kv_unified, b.info.batch_size, flush=True)
b._pads=mode!="nopads"
ctx=b._ctx; od,os_=ctx.decode,ctx.synchronize; cur={}
def dec(batch):
    t=time.perf_counter(); r=od(batch); cur["host"]=cur.get("host",0)+time.perf_counter()-t; cur["n"]=cur.get("n",0)+len(batch); cur["k"]=cur.get("k",0)+1; return r
def syn():
    t=time.perf_counter(); os_(); cur["sync"]=cur.get("sync",0)+time.perf_counter()-t
BB=b._batch
class Bx:
    def add(self,seq,tokens,start,output): cur.setdefault("lens",[]).append(len(tokens)); BB.add(seq,tokens,start,output=output)
    def clear(self): BB.clear(); cur["lens"]=[]
    def __getattr__(self,n): return getattr(BB,n)
    def __len__(self): return len(BB)
b._batch=Bx()
ctx.decode=dec; ctx.synchronize=syn
rng=random.Random(1)
for c in C:
    faulthandler.cancel_dump_traceback_later(); faulthandler.dump_traceback_later(45, exit=True)
    s=Scheduler(b.info,b.vocabulary); e=Engine(s,b,time.monotonic); n=done=0; D={}; Pn=0; Pt=0.0; PL=[]; R=0; last=None
    for q in range(64): b.execute(Plan(ops=(Truncate(q,0),)))
    def add():
        global n
        e.submit(EngineRequest(id=f"{c}-{n}",prompt=tuple(rng.randrange(100,48000) for _ in range(400)),max_tokens=128,ignore_eos=True,sampling=SamplingParams(temperature=temp,logit_bias=())),time.monotonic()); n+=1
    t0=time.monotonic()
    for _ in range(c): add()
    tok=0; sums=dict(plan=0,host=0,sync=0,sample=0,commit=0,steps=0,other=0); rows_sum=0; tok_rows=0
    while e.has_work:
        cur.clear(); t=time.perf_counter(); o=e.step(); w=time.perf_counter()-t
        for ev in o.events:
            tok+=len(ev.tokens)
            if ev.finish:
                done+=1
                if n<c*PER: add()
        r=o.record
        if r.prefill_tokens: Pn+=r.prefill_tokens; Pt+=w; PL.append((r.prefill_tokens,cur.get('lens'),w,cur.get('host',0),cur.get('sync',0),r.sample_s))
        else:
            same=last==(cur.get("n"),r.decode_tokens); last=(cur.get("n"),r.decode_tokens)
            D.setdefault((cur.get("k",0)>1, same, (r.decode_tokens+7)//8*8),[]).append((w,cur.get("host",0),cur.get("sync",0),r.sample_s,cur.get("n",0)))
            sums["steps"]+=1; rows_sum+=cur.get("n",0); tok_rows+=r.decode_tokens
            for k,v in dict(plan=r.plan_s,host=cur.get("host",0),sync=cur.get("sync",0),sample=r.sample_s,commit=r.commit_s).items(): sums[k]+=v
    dt=time.monotonic()-t0; N=max(1,sums["steps"])
    print(f"drive {mode} T={temp} c={c}: {tok/dt:.0f} tok/s; prefill {Pn/max(Pt,1e-9):.0f} tok/s {Pt/dt:.0%} of time; decode steps {N} rows {rows_sum/N:.1f} tokens {tok_rows/N:.1f} ms/step: "+" ".join(f"{k} {1e3*v/N:.2f}" for k,v in sums.items() if k!="steps"),flush=True)
    for k in sorted(D):
        if len(D[k])>8: print("   retried=%s same=%s rows<=%d: n=%d "%(*k,len(D[k]))+" ".join(f"{nm} {1e3*st.median(x[i] for x in D[k]):.2f}" for i,nm in enumerate(("wall","host","sync","sample")))+f" rows {st.mean(x[4] for x in D[k]):.1f}",flush=True)

    for x in PL[8:26]: print(f"   P {x[0]} tokens {x[1]} wall {1e3*x[2]:.1f} host {1e3*x[3]:.1f} sync {1e3*x[4]:.1f} sample {1e3*x[5]:.1f}")
