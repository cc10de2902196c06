# From LVS to here, one director at a time: a pair of keepaliveds, of which one is replaced by an
# appliance that runs the same file. The master stops and returns once before and once after, under
# requests; what fails is not more than before.
#
# This kernel has no IPVS, so a keepalived that is master answers by itself, and the appliance by rs1.
source "$(dirname "$0")/vrrp.bash"
make_directors third

# lvs_conf HOST STATE PRIORITY: as the manuals of LVS have it.
lvs_conf() {
    cat >"$WORK/$1.conf" <<-END
	! Configuration File for keepalived
	global_defs {
	    router_id LVS_$1
	    script_user root
	}
	vrrp_instance VI_1 {
	    state $2
	    interface eth0
	    virtual_router_id 51
	    priority $3
	    advert_int 1
	    authentication {
	        auth_type PASS
	        auth_pass 1111
	    }
	    virtual_ipaddress {
	        $VIP/24 dev eth0 label eth0:0
	    }
	}
	virtual_server $VIP 80 {
	    delay_loop 2
	    lb_algo wlc
	    lb_kind DR
	    persistence_timeout 50
	    protocol TCP
	    real_server 10.77.0.101 80 {
	        weight 1
	        HTTP_GET {
	            url {
	                path /
	                status_code 200
	            }
	            connect_timeout 3
	            nb_get_retry 3
	            delay_before_retry 3
	        }
	    }
	}
	END
}
lvs_conf peer MASTER 100
lvs_conf third BACKUP 90

# there_and_back HOST NAME: the master stops and returns; HOST takes over, answers as NAME, and gives the
# VIP back. Leaves the number of requests that failed in $FAILED.
there_and_back() {
    ask_for_vip
    stop_keepalived peer
    wait_until 5 "$1 takes over" only "$1"
    sleep 0.3
    start_keepalived peer
    wait_until 6 "keepalived has it back" only peer
    asked
    echo "$1: $(jq -c . <<<"$ANSWERS")"
    equal "who answered" "$(jq -r '[.changes[] | .from + " > " + .to] | join(", ")' <<<"$ANSWERS")" \
        "peer > $2, $2 > peer"
    FAILED=$(jq .failed <<<"$ANSWERS")
}

start_keepalived third
start_keepalived peer
wait_until 8 "keepalived is master" only peer
there_and_back third third
before=$FAILED

# Nobody is to notice.
ask_for_vip
stop_keepalived third
cp "$WORK/third.conf" "$WORK/keepalived.conf"
CONFIG=$WORK/keepalived.conf
start_director 7>&-
wait_until 5 "its real server is up" server_is 1 up
asked
equal "requests that failed meanwhile" "$(jq .failed <<<"$ANSWERS")" 0
equal "who answered meanwhile" "$(jq -c '.changes' <<<"$ANSWERS")" '[]'
equal "state" "$(vrrp_state)" BACKUP

there_and_back director rs1
# Both wait for the skew time of priority 90, 648 ms: 130 requests. As many again are for a busy machine;
# an advertisement that is missed costs 200.
between "requests that failed, $before before" "$FAILED" 0 $((before + 130))
equal "refused" "$(ask vrrp '[.instances[].refused[], .refused[]] | length')" 0
