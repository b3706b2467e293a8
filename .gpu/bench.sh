export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 TQDM_DISABLE=1
O=/tmp/bench
T0=$(date +%s)
timeout 120 python3 benchmarks/reward_auc.py --device cuda --rows 1536 --prompts 128 --samples 16 --output $OUT/auc.json > $OUT/auc.log 2>&1 &
timeout 150 python3 benchmarks/steering.py --tune --device cuda --rows 512 --prompts 48 --seeds 4 --scales 3,8,20 --schedules 0.3:0.8:0.1 --pool 16 --processes 4 --output $O > $OUT/tune.log 2>&1
cp $O/tune.json $OUT/; tail -15 $OUT/tune.log; echo tune $(( $(date +%s)-T0 ))
S=$(python3 -c "
import json; r=json.load(open('$O/tune.json'))['rows']; l='fk - best_of_n, equal denoiser calls'
print(max(r,key=lambda x:x[l]['judge']['mean'])['arm']['scale'])")
S=${S:-8}; echo scale $S
timeout 160 python3 benchmarks/steering.py --device cuda --rows 512 --scale $S --processes 5 --output $O > $OUT/g1.log 2>&1; cp $O/steering.json $OUT/g1.json; tail -34 $OUT/g1.log; echo g1 $(( $(date +%s)-T0 ))
wait; cat $OUT/auc.log | tail -60
timeout 150 python3 benchmarks/steering.py --device cuda --rows 512 --scale $S --guidance 2 --processes 5 --output ${O}2 > $OUT/g2.log 2>&1; cp ${O}2/steering.json $OUT/g2.json; tail -30 $OUT/g2.log; echo g2 $(( $(date +%s)-T0 ))
